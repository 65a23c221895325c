"""What runs the work behind `autoscaling.py`: some programs side by side, each on one thread; what is done is kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from _autoscaling_plan import Job
from _autoscaling_tasks import Task, code
from _child import ROOT, is_kept, run

from predact.runtime.artifacts import read_json, write_json

JOB = ROOT / "benchmarks" / "_autoscaling_job.py"

Say = Callable[[str], None]


class Bench:
    """Does jobs; what `work` holds already is used if code, configs, data and machine are the same.

    Args:
        work: folder of the results.
        at_once: programs side by side.
        say: tells how far it is.
    """

    def __init__(self, work: Path, *, at_once: int, say: Say) -> None:
        self.work, self._at_once, self._say = work, at_once, say

    def payload(self, task: Task) -> Any:
        """Return what a task gave; None where it is not done, or was done by other code."""
        return read_json(self.work / task.path)["payload"] if self.is_done(task) else None

    def is_done(self, task: Task) -> bool:
        """Return whether the result is there and still holds."""
        has_agent = task.kind != "train" or (self.work / task.agent_path).exists()
        return has_agent and is_kept(self.work / task.path, task.stamp)

    def do(self, jobs: Sequence[Job]) -> None:
        """Do what of these is not done; after a failure no other program starts, and those that run come to their end.

        Raises:
            SystemExit: a program failed; what it printed last is in the message.
        """
        left = [Job(name=job.name, tasks=tuple(t for t in job.tasks if not self.is_done(t))) for job in jobs]
        left = [job for job in left if job.tasks]
        clock = Clock(at_once=self._at_once, jobs=left)
        done = sum(len(job.tasks) for job in jobs) - sum(len(job.tasks) for job in left)
        self._say(f"{done} results are there, programs to run: {len(left)}; {clock.left()}")

        def measure(job: Job) -> None:
            began_s = time.monotonic()
            self._run(job)
            self._say(clock.after(job, time.monotonic() - began_s))

        with ThreadPoolExecutor(self._at_once) as pool:
            futures = [pool.submit(measure, job) for job in left]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _run(self, job: Job) -> None:
        folder = self.work / "programs"
        name = job.name.replace(" ", "_").replace(",", "").replace("=", "_")
        tasks = folder / f"{name}.json"
        content = {
            "code": code(),
            # What is kept there knows its configs and its load, and not the code that it was made by.
            "cache_dir": str(self.work / "cache" / code()),
            "tasks": [task.plain(self.work) for task in job.tasks],
        }
        write_json(tasks, content)
        run([sys.executable, str(JOB), str(tasks)], folder=folder, log=tasks.with_suffix(".log"), threads=1)


class Clock:
    """Tells how much is left, from how long what is done took against its estimate."""

    def __init__(self, *, at_once: int, jobs: Sequence[Job]) -> None:
        self._at_once, self._num_jobs = at_once, len(jobs)
        self._planned_s = sum(job.seconds for job in jobs)
        self._done_s = self._taken_s = 0.0
        self._num_done = 0

    def left(self) -> str:
        """Return how long it still takes."""
        slower = self._taken_s / self._done_s if self._done_s else 1.0
        return f"about {_minutes(slower * (self._planned_s - self._done_s) / self._at_once)} left"

    def after(self, job: Job, seconds: float) -> str:
        """Return the line for a job that ended."""
        self._done_s += job.seconds
        self._taken_s += seconds
        self._num_done += 1
        return f"{self._num_done} of {self._num_jobs}: {job.name} took {seconds:.0f} s; {self.left()}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
