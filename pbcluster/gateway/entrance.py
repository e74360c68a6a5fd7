"""How a gateway process comes to its listening sockets, says that it serves, and lets go of them.

Used alike by a gateway without workers, by a master and by a worker; which of them it is decides
where the sockets come from (``worker``, ``activation``, ``handover``, else bound here), whom it
tells that it serves (the ready file and a predecessor, or the master), and who may replace it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from pbcluster import ready_file
from pbcluster.config import GatewayConfig
from pbcluster.errors import ConfigError
from pbcluster.gateway import activation, doors, handover, worker
from pbcluster.gateway.doors import Door, Doors
from pbcluster.gateway.handover import Handover, Predecessor
from pbcluster.gateway.worker import Orders, Place
from pbcluster.web.listening import Listener

#: Where a worker's metrics are; its master asks there.
WORKER_METRICS = ("127.0.0.1", 0)


def as_worker(config: GatewayConfig, place: Place) -> GatewayConfig:
    """The settings of a worker: listening as its master does, with metrics for it alone."""
    if not place.is_worker:
        return config
    inherited: dict[str, Any] = {
        door.option: door.address for door in place.doors if door.option == "listen"
    }
    return attrs.evolve(config, workers=place.of, metrics_listen=WORKER_METRICS, **inherited)


class Entrance:
    """See the module.

    :ivar handed_over: whether a successor has the sockets and serves.
    """

    def __init__(
        self,
        reactor: Any,
        config: GatewayConfig,
        place: Place,
        *,
        save: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """
        :param reactor: ``IReactorFDSet``.
        :param save: called before a successor starts: it reads what is saved.
        :param end: called when a successor serves, to stop this process.
        """
        self.handed_over = False
        self._reactor = reactor
        self._config = config
        self._place = place
        self._save = save
        self._end = end
        self._predecessor: Predecessor | None = None
        self._handover: Handover | None = None
        self._orders: Orders | None = None
        self._open: list[Door] = []

    def open(self) -> dict[str, Door]:
        """All doors.

        :raises ConfigError: an address cannot be had, or a running gateway does not give it.
        """
        config, place = self._config, self._place
        if place.is_worker:
            found = doors.opened(config, place.doors)
        else:
            ready_file.remove(config.data_dir)
            given = activation.inherited(activation.environment_at_start(), doors.options(config))
            self._predecessor = handover.ask(config.data_dir) if config.take_over else None
            if self._predecessor is not None:
                known = {door.option for door in given}
                given += [d for d in self._predecessor.doors if d.option not in known]
            try:
                found = doors.opened(config, given)
            except ConfigError:
                self._forget_predecessor()
                raise
        self._open = list(found.values())
        return found

    def doors(self, listen: Listener) -> Doors:
        """As :meth:`open`, ready to accept from the share of this process."""
        place = self._place
        return Doors(listen, self.open(), place.number - 1, place.of)

    def serves(self, shares: Doors | None, **where: Any) -> None:
        """Tell that this process serves, and be ready to be replaced.

        :param shares: what a worker adopts shares with.
        :param where: the addresses, for the ready file.
        """
        if self._place.is_worker:
            if shares is not None:
                self._orders = Orders(
                    self._reactor, adopt=shares.adopt, release=shares.release, drain=self._replaced
                )
                self._orders.start()
            worker.tell_master(**where)
            return
        predecessor, self._predecessor = self._predecessor, None
        if predecessor is not None:
            predecessor.serving()
        self._handover = Handover(
            self._reactor, self._config.data_dir, self._doors_for_successor, self._replaced
        )
        self._handover.start()
        ready_file.write(self._config.data_dir, **where)

    def leaves(self) -> None:
        """This process is being stopped. A successor may still take over what is open."""
        self._forget_predecessor()
        if self._place.is_worker:
            worker.tell_master(leaves=True)
        else:
            ready_file.leave(self._config.data_dir)

    def closes(self) -> None:
        """Nothing is open any more that could be handed over."""
        if self._handover is not None:
            self._handover.stop()
        if self._orders is not None:
            self._orders.stop()

    def _doors_for_successor(self) -> list[Door]:
        self._save()
        return [door for door in self._open if all(one.fileno() >= 0 for one in door.sockets)]

    def _replaced(self) -> None:
        self.handed_over = True
        self._end()

    def _forget_predecessor(self) -> None:
        predecessor, self._predecessor = self._predecessor, None
        if predecessor is not None:
            predecessor.close()
