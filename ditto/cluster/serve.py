"""`ditto serve` as a deployment of Ray Serve: a replica is a server with its own scheduler.

    serve run ditto.cluster.serve:app token=... sessions=4 max_replicas=8

Replicas are added and removed by their load: the share of their sessions, or of their machine, that is in use. A replica that
is removed takes no new conversations, and the open ones go on for `drain_seconds`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditto.cluster.on_ray import import_ray
from ditto.errors import InputError
from ditto.machine import cores, leave_out_of_collections

if TYPE_CHECKING:
    from fastapi import FastAPI

LOAD = "load"  # what a replica reports
MACHINE_SESSIONS = 64  # a core, for Ray's limit of requests where sessions are limited by what they cost
MORE_REQUESTS = 64  # of a replica beside its conversations: the page, uploads, offers of WebRTC
END_SECONDS = 30.0  # that a replica has to end after its conversations have


@dataclass(frozen=True)
class ServeOptions:
    """Options of the deployment.

    Attributes:
        token: that clients must send.
        portrait: the first face of a client; a path on every machine. "": the one of the page.
        bundle, device, max_size: as of `ditto serve`.
        sessions: of a replica at most, and the processor cores that it takes. 0: as many as the machine holds, and all of
            its cores.
        min_replicas, max_replicas: of the deployment.
        target_load: mean load of the replicas (`Scheduler.load`) that is aimed at.
        drain_seconds: for which conversations may go on in a replica that is removed.
        ice_servers: STUN and TURN servers, separated by spaces, as --ice-server takes them.
        client_drawing: which portraits clients may draw themselves: "none", "uploaded" or "all".

    Raises:
        InputError: a token that `ditto serve` refuses for other machines; a number out of range; an unknown `client_drawing`.
    """

    token: str = ""
    portrait: str = ""
    bundle: str = "lite"
    device: str = "cpu"
    max_size: int = 640
    sessions: int = 0
    min_replicas: int = 1
    max_replicas: int = 4
    target_load: float = 0.7
    drain_seconds: float = 600.0
    ice_servers: str = ""
    client_drawing: str = "none"

    def __post_init__(self) -> None:
        from ditto.live.server.access import check_token
        from ditto.live.server.drawing import check_client_drawing
        from ditto.live.server.ice import parse_ice_server

        check_token("0.0.0.0", self.token)
        check_client_drawing(self.client_drawing)
        for server in self.ice_servers.split():
            parse_ice_server(server)
        right = self.sessions >= 0 and 1 <= self.min_replicas <= self.max_replicas
        if not (right and self.max_size >= 64 and 0.0 < self.target_load <= 1.0 and self.drain_seconds >= 0.0):
            raise InputError(
                "expected sessions of 0 or more, 1 <= min_replicas <= max_replicas, max_size of 64 or more, target_load in "
                f"(0, 1] and drain_seconds of 0 or more, got {self.sessions}, {self.min_replicas}, {self.max_replicas}, "
                f"{self.max_size}, {self.target_load} and {self.drain_seconds}; correct them"
            )


def options_of(given: Mapping[str, Any]) -> ServeOptions:
    """Options from names and texts. Raises InputError for an unknown name or a text that is no number."""
    kinds: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "str": str}
    known = {field.name: kinds[str(field.type)] for field in fields(ServeOptions)}
    values = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"expected {', '.join(known)}; got {name!r}; leave it out")
        try:
            values[name] = known[name](value)
        except (ValueError, TypeError):
            raise InputError(f"expected {name} to be a number, got {value!r}; correct it") from None
    return ServeOptions(**values)


def server_of(options: ServeOptions) -> FastAPI:
    """The server of one replica, with its own head."""
    import ditto
    from ditto.live.server.app import create_app
    from ditto.live.server.ice import parse_ice_server
    from ditto.live.server.portraits import SHIPPED
    from ditto.portrait.portrait import Portrait, is_saved

    head = ditto.load(options.bundle, max_sessions=options.sessions or None, device=options.device)
    picture = Path(options.portrait) if options.portrait else SHIPPED
    portrait = Portrait.load(picture) if is_saved(picture) else head.register(picture, max_size=options.max_size)
    head.blocking_session(portrait).close()  # prepares the portrait; raises if the machine is too slow
    app = create_app(
        head,
        portrait,
        token=options.token,
        max_size=options.max_size,
        ice_servers=tuple(map(parse_ice_server, options.ice_servers.split())),
        drain_seconds=options.drain_seconds,
        client_drawing=options.client_drawing,
    )
    app.state.scheduler = head.scheduler
    return app


def replicas_needed(loads: Iterable[float], running: int, target: float) -> int:
    """How many replicas there should be.

    Args:
        loads: of the replicas; without a report, as many replicas are needed as run.
        running: replicas now.
        target: load of a replica.
    """
    reported = list(loads)
    return max(1, math.ceil(sum(reported) / target)) if reported else running


def policy(context: Any) -> tuple[int, dict[str, Any]]:
    """The autoscaling policy, by load instead of requests: takes an `AutoscalingContext`. Ray Serve imports it by name."""
    reports = (context.aggregated_metrics or {}).get(LOAD, {})
    needed = replicas_needed(reports.values(), context.current_num_replicas, context.config.target_ongoing_requests)
    return min(max(needed, context.capacity_adjusted_min_replicas), context.capacity_adjusted_max_replicas), {}


def app(given: Mapping[str, Any]) -> Any:
    """The application for `serve run ditto.cluster.serve:app NAME=VALUE ...`; the names are those of `ServeOptions`.

    Raises:
        InputError: a bad option, or a missing package.
    """
    import_ray()
    options = options_of(given)
    try:
        serve: Any = importlib.import_module("ray.serve")
        config: Any = importlib.import_module("ray.serve.config")
    except ImportError as error:
        raise InputError(f"expected ray[serve], got {error}; pip install 'ditto-talking-head[cluster]'") from None

    def build() -> FastAPI:
        server = server_of(options)
        leave_out_of_collections()
        return server

    class Ditto:
        """A replica. Ray Serve ends the application's lifespan before the replica, which waits for the conversations."""

        app: FastAPI  # set by the ingress

        async def record_autoscaling_stats(self) -> dict[str, float]:
            """The load of its sessions, those over WebRTC too."""
            return {LOAD: self.app.state.scheduler.load}

    deployment = serve.deployment(
        serve.ingress(build)(Ditto),
        name="ditto",
        ray_actor_options={"num_cpus": options.sessions or cores()},
        max_ongoing_requests=(options.sessions or MACHINE_SESSIONS * cores()) + MORE_REQUESTS,
        graceful_shutdown_timeout_s=options.drain_seconds + END_SECONDS,
        graceful_shutdown_wait_loop_s=1.0,
        autoscaling_config=config.AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=options.max_replicas,
            target_ongoing_requests=options.target_load,
            policy=config.AutoscalingPolicy(policy_function=f"{__name__}:{policy.__name__}"),
        ),
    )
    return deployment.bind()
