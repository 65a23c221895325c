from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given

from predact.canbus.frames import Frames
from predact.canbus.timing import FASTEST_PERIOD_S, TimingReference, group_by_id, intervals

from .random_captures import captures, make_frames, random_frames


def fit(frames: Frames, *, reference_s: float = 5.0) -> TimingReference:
    groups = group_by_id(frames)
    return TimingReference.fit(frames, groups, intervals(frames, groups), reference_s=reference_s)


def periodic(period_s: float, until_s: float, *, start_s: float = 0.0) -> list[float]:
    return [start_s + i * period_s for i in range(round((until_s - start_s) / period_s))]


def merged(**times: list[float]) -> Frames:
    """Return the frames of several ids, `id_A=[...]`, in the order of time."""
    both = sorted((time, int(name.removeprefix("id_"), 16)) for name, its in times.items() for time in its)
    return make_frames([time for time, _ in both], [number for _, number in both])


def assert_groups_as_a_loop(frames: Frames) -> None:
    groups = group_by_id(frames)
    rows: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(frames.id.tolist()):
        rows[number].append(row)
    ids = sorted(rows)
    assert groups.ids.dtype == np.uint32 and groups.ids.tolist() == ids
    assert groups.ids[groups.code].tolist() == frames.id.tolist()
    assert groups.order.tolist() == [row for number in ids for row in rows[number]]
    firsts = {rows[number][0] for number in ids}
    assert groups.is_first.tolist() == [row in firsts for row in groups.order.tolist()]


@given(captures())
def test_grouping_agrees_with_a_loop(frames: Frames) -> None:
    assert_groups_as_a_loop(frames)


@pytest.mark.parametrize("num_ids", [65_536, 65_537])
def test_grouping_agrees_with_a_loop_where_ids_outgrow_16_bits(num_ids: int) -> None:
    ids = np.random.default_rng(0).permutation(np.arange(num_ids, dtype=np.int64) * 8191)
    assert_groups_as_a_loop(make_frames(np.arange(num_ids + 3.0), np.append(ids, ids[:3])))


def test_every_11_bit_id_and_the_largest_16_bit_one_keep_apart() -> None:
    assert_groups_as_a_loop(make_frames(np.arange(4096.0), [*range(2048), *range(2047, 0, -1), 65_535]))


@given(captures())
def test_intervals_agree_with_a_loop(frames: Frames) -> None:
    last: dict[int, float] = {}
    expected = []
    for time, number in zip(frames.timestamp.tolist(), frames.id.tolist(), strict=True):
        expected.append(max(time - last[number], 0.0) if number in last else np.nan)
        last[number] = time
    np.testing.assert_array_equal(intervals(frames, group_by_id(frames)), expected)


def test_the_reference_of_two_periodic_ids_by_hand() -> None:
    # Over 5 s: 500 frames of A, every 10 ms, and 50 of B; what comes later is not read.
    frames = merged(id_A=[*periodic(0.01, 5.0), 5.5, 5.6], id_B=periodic(0.1, 5.0) + periodic(0.001, 7.0, start_s=6.0))
    reference = fit(frames)
    assert reference.ids.tolist() == [0xA, 0xB]
    assert reference.rate_hz.tolist() == pytest.approx([100.0, 10.0])
    assert reference.period_s.tolist() == pytest.approx([0.01, 0.1])


def test_the_period_is_the_median_interval_of_the_reference() -> None:
    # Intervals of A: 1, 1, 3, 8 -> 2, the mean of the two in the middle; of B: 2, 3, 7 -> 3.
    frames = merged(id_A=[0.0, 1.0, 2.0, 5.0, 13.0, 99.0], id_B=[1.0, 3.0, 6.0, 13.0])
    assert fit(frames, reference_s=20.0).period_s.tolist() == [2.0, 3.0]


def test_an_id_seen_once_in_the_reference_is_slow_and_one_not_seen_is_unknown() -> None:
    reference = fit(merged(id_A=periodic(0.5, 6.0), id_B=[2.0, 5.5], id_C=[5.1, 5.2, 5.3]))
    assert reference.rate_hz.tolist() == pytest.approx([2.0, 0.2, 0.0])
    assert reference.period_s[:2].tolist() == [0.5, 5.0]


def test_a_frame_at_the_end_of_the_reference_is_no_part_of_it() -> None:
    reference = fit(merged(id_A=[0.0, 2.5], id_B=[5.0], id_C=[9.0]))
    assert reference.rate_hz.tolist() == [0.4, 0.0, 0.0]


def test_a_capture_shorter_than_the_reference_is_its_own() -> None:
    # Five frames of A in 2 s.
    assert fit(merged(id_A=[0.0, 0.5, 1.0, 1.5, 2.0])).rate_hz.tolist() == [2.5]


def test_a_flood_from_the_start_does_not_become_what_is_usual() -> None:
    flood = periodic(FASTEST_PERIOD_S / 4, 5.0)
    fast = periodic(FASTEST_PERIOD_S * 1.5, 5.0)
    reference = fit(merged(id_0=flood, id_A=fast))
    assert reference.rate_hz.tolist() == pytest.approx([0.0, 1 / (FASTEST_PERIOD_S * 1.5)], rel=1e-3)
    assert reference.period_s[0] == 5.0


def test_the_reference_reads_neither_labels_nor_payloads_nor_what_follows() -> None:
    frames = random_frames(5, 300, longest_gap_ticks=10)
    reference = fit(frames, reference_s=1.0)
    cut = int(np.argmax(frames.timestamp - frames.timestamp[0] >= 1.0))
    later = random_frames(6, 300 - cut)
    changed = Frames(
        frames.timestamp,
        np.append(frames.id[:cut], np.resize(frames.id, 300 - cut)).astype(np.uint32),
        np.concatenate([255 - frames.payload[:cut], later.payload]),
        frames.length,
        1 - frames.label,
    )
    other = fit(changed, reference_s=1.0)
    known = reference.rate_hz > 0
    assert 0 < cut < 300 and known.any()
    assert reference.ids[known].tolist() == other.ids[other.rate_hz > 0].tolist()
    np.testing.assert_array_equal(reference.rate_hz[known], other.rate_hz[other.rate_hz > 0])
    np.testing.assert_array_equal(reference.period_s[known], other.period_s[other.rate_hz > 0])


def test_frames_after_the_reference_stay_out_of_it_when_the_clock_steps_back() -> None:
    # A every 0.5 s for 6 s, then the clock starts again at 0 with a flood of B.
    reference = fit(make_frames([*periodic(0.5, 6.0), *periodic(0.01, 3.0)], [0xA] * 12 + [0xB] * 300))
    assert reference.rate_hz.tolist() == pytest.approx([2.0, 0.0])


def test_rates_are_those_of_the_stretch_when_the_clock_ends_before_it_began() -> None:
    # 6 s of A every 0.5 s, then a log that was appended, from 100 s earlier.
    reference = fit(make_frames([*periodic(0.5, 106.0, start_s=100.0), 0.0, 0.5], 0xA))
    assert reference.rate_hz.tolist() == pytest.approx([2.0])
