"""`tart run`: from the command line to the lock of the machine, and the start of its guest."""

from __future__ import annotations

import fcntl
import os
import time

from simulators.tart import errors, faults, locks, share
from simulators.tart.arguments import FLAG, MANY, VALUE, parse
from simulators.tart.errors import Failure, Usage
from simulators.tart.library import Library
from simulators.tart.machine import STATE, Machine, random_mac
from simulators.tart.network import Softnet
from simulators.tart.runner import Runner
from simulators.tart.settings import Settings
from simulators.tart.zombie import linger

FLAGS = (
    "--no-graphics --no-audio --no-clipboard --serial --recovery --vnc --vnc-experimental --nested "
    "--net-softnet --net-host --suspendable --capture-system-keys --no-trackpad --no-pointer "
    "--no-keyboard"
)
VALUES = (
    "--serial-path --rosetta --net-softnet-allow --net-softnet-block --net-softnet-expose "
    "--root-disk-opts"
)
OPTIONS = {
    **dict.fromkeys(FLAGS.split(), FLAG),
    **dict.fromkeys(VALUES.split(), VALUE),
    **dict.fromkeys(("--dir", "--disk", "--net-bridged"), MANY),
}


def run(settings: Settings, argv: list[str]) -> int:
    options = dict(OPTIONS)
    if settings.version >= (2, 34):
        options["--net-softnet-control-fd"] = VALUE
    arguments = parse(argv, options, ["name"])
    networks = ("--net-bridged", "--net-softnet", "--net-host")
    if sum(arguments.flag(one) for one in networks) > 1:
        raise Usage("--net-bridged, --net-softnet and --net-host are mutually exclusive")
    shares = share.parse(arguments.values("--dir"))
    library = Library(settings.home)
    machine = library.at(arguments.names[0])
    if not machine.exists():
        raise Failure(errors.missing(machine.name).text, prefix=True)
    hit = faults.strike(settings, "run", machine.name)
    library.collect(noise=settings["garbage_noise"])

    config = machine.config()
    softnet = None
    with locks.directory(settings.home):
        if collides(library, machine, config["macAddress"]):
            print("There is already a running VM with the same MAC address!")
            print("Resetting VM to assign a new MAC address...", flush=True)
            config["macAddress"] = random_mac()
            machine.write(config)
            if machine.suspended():
                os.unlink(machine.file(STATE))
        for one in shares:
            one.check()
        faults.fail(hit, "run")
        if arguments.flag("--net-softnet") or arguments.flag("--net-host"):
            softnet = Softnet(arguments, config["macAddress"])
        time.sleep(settings["t_start"])
        if (slow := hit.get("slow to die")) is not None:
            locked = linger(settings, machine, slow.get("seconds", 1))
        else:
            locked = locks.take(machine.file("config.json")) is not None
        if not locked:
            raise Failure(f'VM "{machine.name}" is already running!', 2)
    # From here on nothing in this process may open config.json: closing it frees the lock.
    slot = take_slot(settings, library, machine) if config["os"] == "darwin" else -1
    if late := hit.get("limit late"):
        time.sleep(late.get("seconds", 0.2))
        raise limit(library, machine)
    return Runner(settings, machine, config, arguments, shares, hit, softnet, slot).run()


def collides(library: Library, machine: Machine, mac: str) -> bool:
    """Whether another machine that runs has this MAC."""
    return any(
        other.name != machine.name and other.runner() and other.config()["macAddress"] == mac
        for other in library.machines()
    )


def take_slot(settings: Settings, library: Library, machine: Machine) -> int:
    """Count against the limit of running macOS guests of the whole host.

    Returns:
        The descriptor that counts, for as long as it is open anywhere.

    Raises:
        Failure: there are as many already.
    """
    for number in range(settings["macos_limit"]):
        path = os.path.join(settings.host, "macos", str(number))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    raise limit(library, machine)


def limit(library: Library, machine: Machine) -> Failure:
    """What is said at the limit, with the machines that one can see from here."""
    machines = (one for one in library.machines() if one.name != machine.name)
    others = [one.name for one in machines if one.runner()]
    hint = f" (other running VMs: {', '.join(others)})" if others else ""
    return Failure(f"The number of VMs exceeds the system limit{hint}")
