# SPDX-License-Identifier: BSD-2-Clause
"""Makes memory images of guests; called by ../images.sh, which explains the whole.

One guest: boot it under QEMU, read its console until the workload says that it is ready, stop it
over QMP, save its RAM to a file NAME.img.part, and rename that when it is whole. However this
program ends, its QEMU processes and its .part files are gone.
"""
import argparse
import asyncio
import collections
import contextlib
import fcntl
import hashlib
import json
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import composition

MIB = 1 << 20
GUEST_FILES = sorted(file for file in (Path(__file__).resolve().parent / "guest").iterdir()
                     if file.is_file())
MARKER = "@libvmem "  # how a guest addresses us on its console


class GuestError(Exception):
    """Something failed in a way that the user can read about in one message."""


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--guests", type=lambda text: list(dict.fromkeys(text.split(","))))
    parser.add_argument("--mem", type=int, help="MiB")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--started", type=int, help="start of the run, seconds of the epoch")
    return parser.parse_args()


def say(options, text):
    print(f"[{int(time.time()) - options.started:4d} s] {text}", file=sys.stderr, flush=True)


# ---- which images are there already ----

def image_path(options, guest):
    return options.dir / f"{guest}.img"


def parameters(options, guest):
    """What decides the contents of an image, apart from timing: stored beside it as JSON."""
    recipe = hashlib.sha256()
    for file in GUEST_FILES:
        recipe.update(file.read_bytes())
    workload, seed = guest.split("-")
    return {
        "workload": workload,
        "seed": int(seed),
        "mem_mib": options.mem,
        "kernel": (options.cache / "kernel" / "version").read_text().strip(),
        "recipe": recipe.hexdigest()[:16],
    }


def is_made(options, guest):
    image = image_path(options, guest)
    try:
        same = json.loads(image.with_suffix(".json").read_text()) == parameters(options, guest)
        return same and image.stat().st_size == options.mem * MIB
    except (OSError, ValueError):
        return False


# ---- one guest ----

def build_initrd(options, path):
    """The cached busybox and modules, with the files of guest/, as one archive of the kernel's."""
    tree = path.with_suffix(".d")
    shutil.copytree(options.cache / "kernel", tree / "kernel")
    (tree / "workload").mkdir()
    for file in GUEST_FILES:
        shutil.copy(file, tree / "workload")
    (tree / "kernel" / "vmlinuz").unlink()
    (tree / "workload" / "init").rename(tree / "init")
    (tree / "init").chmod(0o755)
    names = "\n".join(str(file.relative_to(tree)) for file in sorted(tree.rglob("*")))
    with path.open("wb") as archive:
        subprocess.run([tree / "kernel" / "busybox", "cpio", "-o", "-H", "newc", "-R", "0:0"],
                       input=names.encode(), stdout=archive, stderr=subprocess.DEVNULL,
                       cwd=tree, check=True)


def qemu_command(options, guest, initrd, qmp_descriptor):
    workload, seed = guest.split("-")
    # The kernel hands parameters that it does not know to /init, as environment variables.
    kernel_line = ("console=ttyS0 quiet panic=-1 mitigations=off"
                   f" WORKLOAD={workload} SEED={seed} MEM_MIB={options.mem}")
    return [
        "setpriv", "--pdeathsig", "KILL", "--",  # no QEMU outlives this program
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-accel", "tcg", "-cpu", "max,la57=off", "-m", str(options.mem),
        "-rtc", "base=2024-01-01T00:00:00,clock=vm",
        "-kernel", str(options.cache / "kernel" / "vmlinuz"), "-initrd", str(initrd),
        "-append", kernel_line,
        "-drive", f"file={options.cache / 'root.img'},format=raw,if=virtio,snapshot=on",
        "-serial", "stdio",
        "-chardev", f"socket,id=qmp,fd={qmp_descriptor}", "-mon", "chardev=qmp,mode=control",
    ]


class Qmp:
    """QEMU's control protocol: one JSON object a line, answers in the order of the commands."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def command(self, name, **arguments):
        self.writer.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while line := await self.reader.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise GuestError(f"QEMU refused {name}: {answer['error']['desc']}")
            if "return" in answer:
                return
        raise GuestError(f"QEMU ended during {name}")


async def wait_until_ready(options, guest, console, log):
    """Reads the console into log until the workload is ready."""
    while line := await console.readline():
        text = line.decode(errors="replace").rstrip()
        log.append(text)
        _, marker, word = text.partition(MARKER)
        if word == "ready":
            return
        if word == "failed":
            raise GuestError("its workload failed")
        if marker:
            say(options, f"{guest}: {word}")
    raise GuestError("QEMU ended before the workload was ready")


async def boot_and_save(options, guest, initrd, log):
    image = image_path(options, guest)
    part = image.with_suffix(".img.part")
    ours, theirs = socket.socketpair()
    qemu = await asyncio.create_subprocess_exec(
        *qemu_command(options, guest, initrd, theirs.fileno()), pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        limit=MIB, start_new_session=True)  # a Ctrl-C is for us to handle
    theirs.close()
    try:
        qmp = Qmp(*await asyncio.open_connection(sock=ours))
        await wait_until_ready(options, guest, qemu.stdout, log)
        await qmp.command("qmp_capabilities")
        await qmp.command("stop")
        try:
            await qmp.command("pmemsave", val=0, size=options.mem * MIB, filename=str(part))
        except GuestError as error:
            free_mib = shutil.disk_usage(options.dir).free // MIB
            raise GuestError(f"{error}, {free_mib} MiB are free in {options.dir}") from error
        if part.stat().st_size != options.mem * MIB:
            raise GuestError(f"QEMU saved only {part.stat().st_size} bytes")
        image.with_suffix(".json").unlink(missing_ok=True)
        part.rename(image)
        image.with_suffix(".json").write_text(json.dumps(parameters(options, guest)) + "\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            if qemu.returncode is None:
                os.kill(qemu.pid, signal.SIGKILL)  # qemu.kill() reaps it behind asyncio's back
        await qemu.wait()
        ours.close()
        part.unlink(missing_ok=True)


async def make_guest(options, guest, initrd, slots):
    log = collections.deque(maxlen=None if options.keep else 15)
    timeout_s = 300 + 3 * options.mem
    async with slots:
        say(options, f"{guest}: booting")
        try:
            await asyncio.wait_for(boot_and_save(options, guest, initrd, log), timeout_s)
        except (GuestError, OSError, asyncio.TimeoutError) as error:
            reason = str(error) or f"not ready after {timeout_s} s"
            console = "".join(f"  | {line}\n" for line in log)
            raise GuestError(f"{guest}: {reason}. The end of its console:\n{console}") from error
        finally:
            if options.keep:
                image_path(options, guest).with_suffix(".log").write_text("\n".join(log) + "\n")
        say(options, f"{guest}: saved {image_path(options, guest)}")


# ---- all of them ----

async def make_all(options, guests, initrd):
    slots = asyncio.Semaphore(options.jobs)
    tasks = [asyncio.create_task(make_guest(options, guest, initrd, slots)) for guest in guests]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()  # raises what the guest failed with
    finally:  # one failed or we are interrupted: end the others, and see them end
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def make_all_unless_interrupted(options, guests, initrd):
    """Returns the signal that ended it early, or None."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    received = []

    def interrupt(number):
        if not received:
            received.append(number)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt, number)
    try:
        await make_all(options, guests, initrd)
    except asyncio.CancelledError:
        return received[0]
    return None


def open_directory(options, guests):
    """Makes DIR, sees that it has room, and keeps other runs out of it while this one runs."""
    try:
        options.dir.mkdir(parents=True, exist_ok=True)
        fcntl.flock(os.open(options.dir, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if guests:
            tempfile.TemporaryFile(dir=options.dir).close()  # can be written to
    except BlockingIOError as error:
        raise GuestError(f"another run is making images in {options.dir}: wait for it") from error
    except OSError as error:
        raise GuestError(f"cannot put images into {options.dir} ({error.strerror}): "
                         "name a directory that can be written to") from error
    free_mib = shutil.disk_usage(options.dir).free // MIB
    needed_mib = options.mem * len(guests)
    if free_mib < needed_mib:
        raise GuestError(f"{options.dir} has {free_mib} MiB free, {needed_mib} are needed: "
                         "make room, name another directory, or ask for less (--guests, --mem)")


def run(options):
    options.dir = options.dir.absolute()
    missing = [guest for guest in options.guests if not is_made(options, guest)]
    open_directory(options, missing)
    for guest in options.guests:
        if guest not in missing:
            say(options, f"{guest}: kept, made before in the same way")
    if missing:
        with tempfile.TemporaryDirectory(prefix="libvmem-images-") as scratch:
            initrd = Path(scratch) / "initrd"
            build_initrd(options, initrd)
            number = asyncio.run(make_all_unless_interrupted(options, missing, initrd))
        if number:
            say(options, "interrupted: guests ended, half-made images removed")
            return 128 + number
    composition.print_table([image_path(options, guest) for guest in options.guests])
    return 0


def main():
    options = parse_arguments()
    try:
        return run(options)
    except (GuestError, OSError) as error:
        print(f"images.sh: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
