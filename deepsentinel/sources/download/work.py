"""Products brought one beside the other: each is ordered where it must be, fetched, checked and put in its place.

Nothing that happens to one of them stops the others. Whoever waits for an archive asks seldom, and ever more seldom;
when it was asked is kept in the folder, so that calling again does not mean asking more often.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepsentinel.errors import SourceError
from deepsentinel.files import folder_bytes
from deepsentinel.sources.addresses import redacted
from deepsentinel.sources.safe.finding import find_paths

from .folder import Busy, Damaged, Folder, Incomplete, check_folder, check_whole, digest_of
from .provider import FULL, NotSignedIn, Product, Provider
from .transfer import Fetching, Stopped, Transfer

POLL_FIRST_S, POLL_MOST_S, POLL_GROWTH = 30.0, 600.0, 1.5
BUSY_S, LOOK_S = 2.0, 0.1
# An archive that cannot be asked so many times in a row has lost the order, for all we know.
ORDER_FAILURES = 3
NOT_COME_TO = "was not come to"
STOPPED = "stopped on the way; what has come is kept"


@dataclass(eq=False)
class Job:
    """One product, and how far it is."""

    name: str
    product: Product | None = None
    """As the provider has it; None where it need not be asked."""
    scenes: tuple[str, ...] = ()
    status: str = "planned"
    path: Path | None = None
    size: int | None = None
    remark: str = ""
    """What is different about it, whatever becomes of it."""
    note: str = ""
    """What became of it, where the status does not say it all."""
    next_s: float = 0.0
    """When to look again, as `time.time()` counts."""

    def is_now(self, status: str, note: str = "", *, path: Path | None = None, next_s: float = 0.0) -> None:
        """Say what became of it."""
        self.status, self.note, self.path, self.next_s = status, note, path, next_s


class Meter:
    """One bar for all bytes, that several threads move; what was brought earlier counts as brought."""

    def __init__(self, total: int, there: int, what: str, shown: bool) -> None:
        from tqdm.auto import tqdm

        disable = False if "ipykernel" in sys.modules else None
        if not shown or threading.current_thread() is not threading.main_thread():
            disable = True
        self._lock = threading.Lock()
        self._bar = tqdm(
            total=total, initial=there, desc=what, unit="B", unit_scale=True, unit_divisor=1000, disable=disable
        )

    def add(self, count: int) -> None:
        """More came, or a part was thrown away."""
        with self._lock:
            self._bar.update(count)

    def close(self) -> None:
        """Nothing more comes."""
        self._bar.close()


class Crew:
    """Brings jobs into a folder."""

    def __init__(
        self,
        folder: Folder,
        provider: Provider,
        *,
        threads: int,
        extract: bool,
        checksum: bool,
        wait_s: float,
        stop: Callable[[], bool],
    ) -> None:
        self.folder, self.provider, self.threads = folder, provider, threads
        self.extract, self.checksum, self.wait_s, self.stop = extract, checksum, wait_s, stop
        self._stopping = threading.Event()
        self._open: set[Transfer] = set()

    def run(self, jobs: Sequence[Job], meter: Meter) -> None:
        """Bring them; afterwards each says what became of it."""
        ends = time.time() + self.wait_s
        with self._pool() as pool:
            pending: dict[Future[None], Job] = {pool.submit(self._bring, job, meter): job for job in jobs}
            later: list[Job] = []
            while pending or later:
                done, _ = wait(pending, timeout=LOOK_S, return_when=FIRST_COMPLETED) if pending else (set(), None)
                for future in done:
                    job = pending.pop(future)
                    future.result()
                    if job.status in ("ordered", "busy"):
                        later.append(job)
                if self.stop():
                    self._halt()
                if self._stopping.is_set():
                    later = []
                # One that will not be looked at before the end is not waited for.
                later = [job for job in later if job.status == "busy" or job.next_s <= ends]
                due = [job for job in later if job.next_s <= time.time()]
                later = [job for job in later if job not in due]
                pending |= {pool.submit(self._bring, job, meter): job for job in due}
                if later and not pending:
                    self._stopping.wait(LOOK_S)
        for job in jobs:
            if job.status in ("planned", "busy"):
                job.is_now("stopped", job.note or NOT_COME_TO)

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Threads that end soon after anything goes wrong here, such as Ctrl-C."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="deepsentinel download")
        try:
            yield pool
        except BaseException:
            self._halt()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _halt(self) -> None:
        """Nobody wants any more of it: what waits wakes up, and what is being sent is hung up on."""
        self._stopping.set()
        for transfer in list(self._open):
            transfer.hang_up()

    def _wait(self, seconds: float) -> None:
        """Sleep, unless nobody wants it any more."""
        if self._stopping.wait(seconds) if seconds > 0 else self._stopping.is_set():
            raise Stopped

    # -- one product ---------------------------------------------------------------------------------------------------

    def _bring(self, job: Job, meter: Meter) -> None:
        assert job.product is not None
        try:
            self._wait(0.0)
            with self.folder.mine(job.name):
                path = self.folder.present(job.name)
                if path is not None:  # another process was quicker
                    job.size = self.folder.note(job.name).get("bytes", job.size)
                    job.is_now("present", path=path)
                elif self._is_ready(job, job.product):
                    self._fetch(job, job.product, meter)
        except Stopped:
            job.is_now("stopped", STOPPED)
        except Busy as error:
            job.is_now("busy", str(error), next_s=time.time() + BUSY_S)
        except Fetching:
            self._ordered(job, {}, "is being fetched from the archive")
        except SourceError as error:
            if self._stopping.is_set():  # hung up on
                job.is_now("stopped", STOPPED)
                return
            offline = "" if job.product.is_online or not job.product.by_http else self._offline(job.product)
            job.is_now("failed", f"{error}{offline}")
        except OSError as error:
            asked = "Is there room?" if error.errno in FULL else "See to it, and call again."
            job.is_now("failed", f"{job.name} cannot be written: {redacted(str(error))}. {asked}")
        except Exception as error:  # of somebody else's code, which must not take the other products with it
            job.is_now("failed", f"{job.name}: {type(error).__name__}: {redacted(str(error))[:200]}")

    def _offline(self, product: Product) -> str:
        orders = "its order failed" if product.can_order else f"{self.provider.name} takes no orders"
        return f" The product is not online but in the archive, and {orders}; try later, or another provider."

    def _is_ready(self, job: Job, product: Product) -> bool:
        """Whether it can be fetched; one that must come from the archive is ordered, once, or asked after."""
        if product.is_online:
            return True
        note = self.folder.note(job.name)
        order = note.get("order") or {}
        if not (order or product.can_order):
            return True  # some are ordered by asking for the file itself
        again_s = float(note.get("asked_s", 0)) + float(note.get("every_s", 0))
        if again_s > time.time():
            job.is_now("ordered", self._since(note), next_s=again_s)
            return False
        try:
            kept = self.provider.order(product, order)
        except NotSignedIn:
            raise
        except SourceError as error:
            failures = int(note.get("failures", 0)) + 1
            if not order or failures >= ORDER_FAILURES:
                self.folder.keep(job.name, order=None, asked_s=None, every_s=None, ordered_s=None, failures=None)
                raise
            self._ordered(job, order, f"could not be asked after: {error}", failures=failures)
            return False
        if not product.is_online:
            self._ordered(job, kept, "")
        return product.is_online

    def _ordered(self, job: Job, order: dict[str, str], what: str, *, failures: int | None = None) -> None:
        note = self.folder.note(job.name)
        now = time.time()
        every_s = min(float(note.get("every_s", POLL_FIRST_S / POLL_GROWTH)) * POLL_GROWTH, POLL_MOST_S)
        facts = {"ordered_s": note.get("ordered_s", now), "asked_s": now, "every_s": every_s}
        self.folder.keep(
            job.name,
            provider=self.provider.name,
            scenes=sorted({*note.get("scenes", ()), *job.scenes}),
            order=order or note.get("order"),
            failures=failures,
            **facts,
        )
        job.is_now("ordered", "; ".join(filter(None, (self._since(facts), what))), next_s=now + every_s)

    def _since(self, note: dict[str, Any]) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(float(note.get("ordered_s", time.time()))))
        return f"ordered from the archive on {when} UTC; call again to fetch it"

    def _fetch(self, job: Job, product: Product, meter: Meter) -> None:
        checksum = product.checksum if self.checksum else None
        began = time.monotonic()
        came = 0

        def count(more: int) -> None:
            nonlocal came
            came += max(more, 0)
            meter.add(more)

        for attempt in (1, 2):
            made, announced = self.folder.part(job.name), None
            if product.by_http:
                size = self._transfer(job, product, checksum, count)
            else:
                made, announced = self._by_eodag(job, product, count)
                size = made.stat().st_size if made.is_file() else folder_bytes(made)
            try:
                if made.is_file():
                    checked = check_whole(made, job.name, checksum, lambda: self._wait(0.0))
                else:
                    checked = check_folder(
                        made, job.name, sums=self.checksum, announced=announced, tick=lambda: self._wait(0.0)
                    )
                break
            except Damaged as error:
                # Pieces of two files, or a bit that fell over: once more, all of it.
                self.folder.drop(job.name)
                meter.add(-size)
                if attempt == 2:
                    excuse = "" if isinstance(error, Incomplete) else self._excuse(checksum, product)
                    raise Damaged(f"{error} It came twice, wrong both times.{excuse}") from error
        if product.by_http:
            path = self.folder.finish(job.name, extract=self.extract)
        else:
            path = self.folder.adopt(job.name, made, extract=self.extract)
        taken_s = time.monotonic() - began
        self.folder.keep(
            job.name,
            provider=self.provider.name,
            scenes=sorted({*self.folder.note(job.name).get("scenes", ()), *job.scenes}),
            bytes=size,
            # What all of it would have taken at the pace of what came now.
            seconds=taken_s * size / came if came else None,
            checked=checked,
            whole=True,
            **dict.fromkeys(("etag", "modified", "total", "order", "ordered_s", "asked_s", "every_s", "failures")),
        )
        job.size = size
        job.is_now("downloaded", self.folder.remark(job.name, path), path=path)

    def _excuse(self, checksum: str | None, product: Product) -> str:
        if not (digest_of(checksum) if product.by_http else self.checksum):
            return ""
        whose = "the provider's checksum" if product.by_http else "what the provider or the manifest states"
        return f" If {whose} is what is wrong, take checksum=False."

    def _transfer(self, job: Job, product: Product, checksum: str | None, count: Callable[[int], None]) -> int:
        handle = product.handle
        transfer = Transfer(
            str(handle.remote_location),
            self.folder.part(job.name),
            key=lambda: self.provider.key(product),
            renew=lambda: self.provider.renew(product),
            known=self.folder.note(job.name),
            on_known=lambda known: self.folder.keep(
                job.name, provider=self.provider.name, scenes=list(job.scenes), **known
            ),
            on_bytes=count,
            wait=self._wait,
            has_checksum=digest_of(checksum) is not None,
            verify=bool(getattr(handle.downloader.config, "ssl_verify", True)),
        )
        self._open.add(transfer)
        try:
            return transfer.run()
        finally:
            self._open.discard(transfer)

    def _by_eodag(self, job: Job, product: Product, count: Callable[[int], None]) -> tuple[Path, int | None]:
        """From S3, file by file: what EODAG has finished of it earlier it does not fetch again."""

        def on_bytes(more: int) -> None:
            self._wait(0.0)
            count(more)

        made, announced = self.provider.fetch(product, self.folder.part(job.name), on_bytes)
        return next(find_paths(made), made), announced
