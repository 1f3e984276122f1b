"""Whether to sample all pairs at once or to divide them into shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from heterodyne._events import EventSink, Message
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.schema import EngineName
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cost import duration, memory, predict

_MEMORY = Path("/proc/meminfo")
_LEFT = "MemAvailable:"


def divided(
    config: CMCConfig, n_frames: int, n_phi: int, engine: EngineName, on_event: EventSink
) -> Sharding | None:
    """Decide how data are to be divided, and say so in a sentence.

    A shard has frames from all of the measurement, so one of its gradients takes no less time
    and memory than one of all pairs. For that reason ``enable: auto`` divides nothing by itself.

    Args:
        config: Settings; the sentence begins with ``run_id`` where there is one.
        n_frames: Number of frames, N.
        n_phi: Number of angles.
        engine: What draws.
        on_event: Receives the sentence.

    Returns:
        The division; None for one pass over all pairs.
    """
    sharding, message = _decided(config, n_frames, n_phi, engine)
    if config.run_id is not None:
        first, rest = message.text[0].lower(), message.text[1:]
        message = replace(message, text=f"Run {config.run_id}: {first}{rest}")
    on_event(message)
    return sharding


def _decided(
    config: CMCConfig, n_frames: int, n_phi: int, engine: EngineName
) -> tuple[Sharding | None, Message]:
    n_points = n_phi * n_frames**2
    reason = _request(config)
    n_shards = config.get_num_shards(n_points, n_phi) if reason else 1
    if n_shards > 1:
        text = f"The pairs are divided into {n_shards} shards ({config.sharding_strategy})"
        sharding = Sharding(n_shards, config.sharding_strategy, config.seed)
        return sharding, Message(f"{text}, since {reason}.")
    if reason:
        text = f"All pairs are sampled in one pass: {reason}, but {_few(config)}."
        return None, Message(text)
    return None, _one_pass(config, n_frames, n_phi, engine)


def asks_for_shards(config: CMCConfig) -> bool:
    """Whether settings ask for shards; there may be too few points for them."""
    return bool(_request(config))


def _request(config: CMCConfig) -> str:
    """Setting that asks for shards, in words; empty where none does."""
    if config.enable in (False, "never"):
        return ""
    if config.enable in (True, "always"):
        return f"enable is {config.enable}"
    if isinstance(config.num_shards, int) and config.num_shards > 1:
        return f"num_shards is {config.num_shards}"
    if isinstance(config.max_points_per_shard, int):
        return f"max_points_per_shard is {config.max_points_per_shard:,}"
    return ""


def _few(config: CMCConfig) -> str:
    if isinstance(config.num_shards, int):
        return f"num_shards is {config.num_shards}"
    return (
        "two shards would have fewer points than min_points_per_shard "
        f"({config.min_points_per_shard:,}) or min_points_per_param "
        f"({config.min_points_per_param:,}) allow"
    )


def _one_pass(config: CMCConfig, n_frames: int, n_phi: int, engine: EngineName) -> Message:
    """Say that all pairs are sampled at once, and what that takes."""
    pairs = f"All {n_phi * n_frames * (n_frames - 1) // 2:,} pairs are sampled in one pass"
    if not config.should_enable_cmc(n_phi * n_frames**2):
        why = "they are few" if config.enable == "auto" else f"enable is {config.enable}"
        return Message(f"{pairs}, since {why}.")
    draws = config.num_warmup + config.num_samples
    cost = predict(n_frames, n_phi, 0, config.num_chains, draws, nuts=engine == "nuts")
    left = memory_left()
    takes = f"{pairs}, which takes about {memory(cost.memory_bytes)} of memory"
    if left is not None and cost.memory_bytes > left:
        return Message(
            f"{takes}, but {memory(left)} are left. Shards would take more, since each has "
            "frames from all of the measurement: take fewer frames or angles, or another machine.",
            "warning",
        )
    return Message(
        f"{takes} and {duration(cost.sampling_s)}. Each shard would take as long; enable: always "
        "divides all the same."
    )


def memory_left() -> float | None:
    """Memory in bytes that is available on this machine; None where it does not tell."""
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = (line.removeprefix(_LEFT) for line in lines if line.startswith(_LEFT))
    return next((1024.0 * float(value.split()[0]) for value in values), None)
