"""What is said of a task before its agent is trained: what cannot be done, and which settings have no effect."""

from __future__ import annotations

from predact.autoscaling.agents import AgentConfig, make_network
from predact.autoscaling.catalog import PATTERN_NAMES, TRACE_PREFIX, TRACES
from predact.autoscaling.comparison import part_of
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecast_training import check_lengths
from predact.autoscaling.forecasts import LSTM, NONE, find_forecaster
from predact.autoscaling.load_patterns import LoadConfig, LoadPattern, traces_of
from predact.autoscaling.lstm_forecast import LoadForecastConfig
from predact.autoscaling.observations import observation_names
from predact.autoscaling.training_config import TrainingConfig, unread_lengths
from predact.forecasting.series import PARTS
from predact.rl.q_table import QTableConfig
from predact.runtime.errors import PredactError
from predact.runtime.hooks import load_object
from predact.runtime.paths import SIMULATED_SUFFIX
from predact.runtime.trainer import TrainerConfig


def check_trainer(trainer: TrainerConfig) -> None:
    """Refuse first what would be refused later: it must not cost what is trained before.

    Raises:
        PredactError: agents train on one device in 32-true, and a user's own callbacks and loggers must be there.
    """
    if trainer.devices != 1 or trainer.num_nodes != 1:
        raise PredactError(
            f"trainer.devices={trainer.devices}, num_nodes={trainer.num_nodes}: an agent trains on one device; use a "
            "sweep over seeds to fill more"
        )
    if trainer.precision != "32-true":
        raise PredactError(f"trainer.precision={trainer.precision}: agents train in 32-true")
    for path in (*trainer.callbacks, *trainer.loggers):
        load_object(path)


def check_task(
    load: LoadConfig, cluster: AutoscaleConfig, agent: AgentConfig, forecast: LoadForecastConfig | None = None
) -> LoadPattern:
    """Return the training load; whatever of the task cannot be done is refused before a run has a folder.

    Args:
        forecast: of the LSTM, which `cluster.forecast=lstm` asks for.

    Raises:
        PredactError: a trace with a part that is too short, a forecast that is not there or cannot be trained, bins
            that do not fit.
    """
    if load.part != "train":
        raise PredactError(f"data.part={load.part}: a run trains, validates and tests on parts of its own; leave it")
    if cluster.forecast != LSTM:
        find_forecaster(cluster.forecast)
    elif forecast is not None:
        check_lengths(forecast, cluster)
    make_network(agent, names=observation_names(cluster), num_actions=len(cluster.action_changes))
    pattern, *_ = (part_of(load, cluster, part) for part in PARTS)
    return pattern


def lstm_problem(forecast: LoadForecastConfig, cluster: AutoscaleConfig) -> str | None:
    """Return why no LSTM can forecast this cluster's load; None where one can."""
    try:
        check_lengths(forecast, cluster)
    except PredactError as error:
        return str(error)
    return None


def unread_fields(load: LoadConfig, pattern: LoadPattern, cluster: AutoscaleConfig) -> list[str]:
    """Return a line for each field of a load that has no effect on its pattern."""
    traces, notes = traces_of(pattern), list[str]()
    if not traces:
        given = {"sample_s": load.sample_s, "on_gap": load.on_gap}
        is_for = f"has no effect on {load.pattern}, which is generated; it is for traces"
        return [f"data.{name}={value} {is_for}" for name, value in given.items() if value is not None]
    days = {trace.name.removeprefix(TRACE_PREFIX): trace.cycle_steps * cluster.decision_s for trace in traces}
    if load.sample_s is not None:
        if load.day_s != LoadConfig.day_s:
            notes.append(f"data.day_s={load.day_s:g} has no effect on traces: data.sample_s={load.sample_s:g} decides")
        return notes
    longer = [f"{name} {day_s:.4g} s" for name, day_s in days.items() if day_s > load.day_s * (1 + 1e-9)]
    if longer:
        notes.append(
            f"data.day_s={load.day_s:g} has no effect on the day of {', '.join(longer)}: in less, the test part would "
            "be shorter than two episodes"
        )
    return notes


def task_notes(
    load: LoadConfig,
    pattern: LoadPattern,
    cluster: AutoscaleConfig,
    agent: AgentConfig,
    training: TrainingConfig,
    *,
    max_epochs: int | None = None,
) -> list[str]:
    """Return a line for each setting that has no effect in this task, or hardly the one that it seems to have.

    Args:
        pattern: the training load.
        max_epochs: of the trainer.
    """
    notes = [*unread_lengths(training, agent, max_epochs=max_epochs), *unread_fields(load, pattern, cluster)]
    if not training.vary_traces and not traces_of(pattern):
        notes.append(f"training.vary_traces=False has no effect on {load.pattern}, which is generated anew anyway")
    if training.vary_starts and cluster.initial_instances is not None:
        notes.append(
            f"training.vary_starts={training.vary_starts:g} has no effect: cluster.initial_instances="
            f"{cluster.initial_instances} says with which fleet every episode begins; drop one of the two"
        )
    if cluster.forecast != NONE and cluster.forecast_every_steps > cluster.forecast_steps:
        notes.append(
            f"cluster.forecast_every_steps={cluster.forecast_every_steps} is above forecast_steps="
            f"{cluster.forecast_steps}: some decisions see forecasts of the past alone; raise forecast_steps"
        )
    if isinstance(agent, QTableConfig) and cluster.forecast != NONE:
        forecast = [name for name in observation_names(cluster) if name.startswith("forecast_")]
        if not set(forecast) & set(agent.bins):
            notes.append(
                f"cluster.forecast={cluster.forecast} has no effect: agent.bins has none for {forecast[0]} and the "
                "like, so the table does not look at it; add bins or drop it"
            )
    return notes


def model_name(preset: str, label: str) -> str:
    """Return the preset's name; of a preset whose load was changed, with the load's behind it.

    Args:
        label: of the load; a file's own name may end a preset's by chance.
    """
    own = label.removesuffix(SIMULATED_SUFFIX)
    is_known = own in (*PATTERN_NAMES, *TRACES)
    return preset if is_known and preset.endswith(f"_{own}") else f"{preset}_{own}"
