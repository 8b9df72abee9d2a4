"""One domain of a Xen host, made by xl: the same contract as QEMU's machines have."""

from __future__ import annotations

import asyncio
import shlex
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from testbed.errors import ExperimentError
from testbed.guests.agent import Agent
from testbed.guests.backend import BOOT_LIMIT_S, Capability, Vm
from testbed.guests.machine import Machine
from testbed.guests.reports import Reports
from testbed.guests.xen import xl
from testbed.guests.xen.config import cap, configuration
from testbed.guests.xen.host import Stream, XenHost
from testbed.guests.xen.line import Line

_DOMAIN = (Path(__file__).parents[1] / "files" / "xen-domain").read_text()
# Debian builds Xen without shadow paging, by which it would follow what a running domain writes.
_INSTEAD = "save it, copy what was saved, restore it there"
_FAILED = "THIS FAILED"
# A domain is known by its UUID: while xl is at work, what has its name may be somebody else's.
_END = """\
[ ! -e {folder}/pid ] || kill -s KILL -- -$(cat {folder}/pid)
domain=$(xl vm-list | sed -n 's/^{uuid} *\\([0-9]*\\) .*/\\1/p')
[ -z "$domain" ] || xl destroy $domain && rm -rf {folder}"""
_LIMIT_S = 180.0  # of one xl, on a loaded machine that translates


class XenVm(Vm):
    """A domain; `start` makes one, `ready` waits until it has booted.

    `host` is where it runs.  It is destroyed when it is closed; a host that is a guest takes its
    domains with it.
    """

    backend: ClassVar[str] = "Xen"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.SAVE_RESTORE, Capability.CPU_LIMIT, Capability.REPORTS}
    )
    instead: ClassVar[Mapping[Capability, str]] = {
        Capability.LIVE_MIGRATION: _INSTEAD,
        Capability.POST_COPY: _INSTEAD,
    }

    def __init__(self, machine: Machine, host: XenHost, log: Path | None) -> None:
        if machine.display is not None:
            self.require(Capability.DISPLAY)
        self.machine = machine
        self.host = host
        self.lines = Reports()
        self.agent: Agent
        self._log = log
        self._uuid = str(uuid.uuid4())
        self._folder = f"/run/liquidnet-xen.{self._uuid}"  # on the host, between it and us
        self._stream: Stream
        self._line: Line
        self._carrying: asyncio.Task[None] | None = None
        self._domain: str | None = None  # its number, while there is one
        self._ending = False  # on purpose
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(
        cls,
        machine: Machine,
        host: XenHost,
        bridges: Sequence[str] = (),
        *,
        log: Path | None = None,
    ) -> XenVm:
        """Make a domain on `host`, with a bridge of the host for each of the machine's interfaces.

        What its console says is added to the file `log`.

        Raises `ExperimentError`, with xl's first error, where xl does not make it.
        """
        vm = cls(machine, host, log)
        kernel = await host.provide(machine.image.kernel)
        initrd = await host.provide(machine.image.initrd)
        await vm._make(bridges, kernel=kernel, initrd=initrd)
        return vm

    @classmethod
    async def restore(
        cls,
        path: Path,
        machine: Machine,
        host: XenHost,
        bridges: Sequence[str] = (),
        *,
        log: Path | None = None,
    ) -> XenVm:
        """Make a domain from the state that `save` wrote on this host, or that was copied to it.

        The guest goes on where it was; its clock stood still meanwhile.  Raises `ExperimentError`
        where xl does not take it.
        """
        vm = cls(machine, host, log)
        await vm._make(bridges, state=path)
        return vm

    async def _make(
        self,
        bridges: Sequence[str],
        *,
        kernel: str = "",
        initrd: str = "",
        state: Path | None = None,
    ) -> None:
        """Have xl make the domain, and get hold of its console; nothing is left if it fails."""
        told = configuration(
            self.machine,
            uuid=self._uuid,
            kernel=kernel,
            initrd=initrd,
            bridges=bridges,
            script=self.host.vif_script,
        )
        words = ["restore" if state else "create", f"{self._folder}/configuration"]
        words += [str(state)] if state else []
        try:
            await self.host.put(words[1], told.encode())
            self._stream = await self.host.stream(_DOMAIN, self.name, self._folder, *words)
        except BaseException:
            await self._destroy()
            raise
        self._line = Line(self._stream.end, self._log)
        try:
            async with asyncio.timeout(_LIMIT_S):
                self._domain = await self._line.up()
            if self._domain is None:
                said = await self.host.run(f"cat {self._folder}/said")
                raise self._trouble(said)
            self.agent = await Agent.open(self._line.agent, self.name, booted=state is not None)
        except BaseException as error:
            self._line.close()
            await self._stream.close()
            await self._end()
            if isinstance(error, TimeoutError):
                raise self._trouble(f"xl is not done after {_LIMIT_S:.0f} s") from error
            raise
        self.lines.attach(self._line.reports)
        self._carrying = asyncio.create_task(self._carry())

    async def _carry(self) -> None:
        """Carry the console; when it has ended, note why."""
        await self._line.carry()
        if not self._ending:
            self._ended.set_result(await self._why())

    async def _why(self) -> str:
        try:
            log = await self.host.run(f"cat {self.host.logs}/xl-{self.name}.log")
        except ExperimentError as error:
            return f"guest {self.name} is gone: {error.message}"
        why = xl.ended(log)
        return f"guest {self.name} {why}" + (f": {self.last_words()}" if why == "crashed" else "")

    # -- the guest ----------------------------------------------------------------------------

    async def ready(self, limit_s: float = BOOT_LIMIT_S) -> str:
        """Wait until the guest has booted; kernel release and available memory, as it says them.

        Raises `ExperimentError`, with the last line of its console, when it does not.
        """
        try:
            return await self.agent.ready(limit_s)
        except ExperimentError as error:
            raise ExperimentError(f"{error.message}: {self.last_words()}") from error

    async def run(self, script: str, *, given: bytes = b"", limit_s: float = 30.0) -> str:
        """Run shell commands in the guest, `given` their input; what they said (see `Agent`)."""
        return await self.agent.run(script, given=given, limit_s=limit_s)

    async def put(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Write a file in the guest, with the folders that lead to it."""
        await self.agent.put(path, data, executable=executable)

    @property
    def crashed(self) -> asyncio.Future[str]:
        """Done when the domain has ended without being closed or saved; why."""
        return asyncio.shield(self._ended)

    @property
    def console(self) -> str:
        """All that the guest's console has said."""
        return self._line.text.decode(errors="replace")

    # -- its life -----------------------------------------------------------------------------

    async def domain(self) -> xl.Domain | None:
        """The domain as `xl list` has it; None when there is none any more."""
        if self._domain is None:
            return None
        listed = await self.host.run(f"xl list {self._domain} 2>/dev/null || true")
        return next(iter(xl.domains(listed)), None)

    async def save(self, path: Path) -> None:
        """Write the domain's state to a file of the Xen host; there is no domain afterwards.

        Raises `ExperimentError` when that fails; the domain goes on then.
        """
        self._ending = True
        try:
            await self._order(f"xl save {self._domain} {shlex.quote(str(path))}")
        except BaseException:
            self._ending = False
            raise
        assert self._carrying is not None
        await self._carrying  # what it said last
        self._domain = None

    async def limit_cpu(self, processors: float | None) -> None:
        """Change the processor time that the domain may take, in processors (None: no limit)."""
        wanted = f"-d {self._domain} -c {cap(processors)}"
        await self._order(f"xl sched-credit2 {wanted} || xl sched-credit {wanted}")

    async def close(self) -> None:
        """Destroy the domain; the guest's state is lost."""
        self._ending = True
        await self._end()
        await self.agent.close()
        self.lines.detach(self._line.reports)

    async def _order(self, script: str) -> None:
        said = await self.host.run(f"{{ {script}; }} 2>&1 || echo {_FAILED}", limit_s=_LIMIT_S)
        if said.rstrip().endswith(_FAILED):
            raise self._trouble(said.rstrip().removesuffix(_FAILED))

    def _trouble(self, said: str) -> ExperimentError:
        return ExperimentError(f"guest {self.name} on {self.host.name}: {xl.trouble(said)}")

    async def _destroy(self) -> None:
        """Leave neither a domain nor what was made for it on the host."""
        if self.host.alive:
            await self._order(_END.format(folder=self._folder, uuid=self._uuid))

    async def _end(self) -> None:
        await self._destroy()
        self._line.hang_up()
        if self._carrying is not None:
            await self._carrying
        await self._stream.close()
