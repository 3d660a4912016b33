"""What happens to the streams, the environment and the end of a command; in both engines."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator

import pytest

from claw_core.errors import ClawError, ConfigError, RuntimeFault, SpentInstance
from claw_core.model import Command, Control, Exit, Signal, Spec
from local import support
from local.support import Output, chunks, run, session


@pytest.fixture(params=support.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_exit_code_comes_through() -> None:
    async def main() -> None:
        async with session() as there:
            for first in range(0, 256, 16):
                codes = range(first, first + 16)
                ends = await asyncio.gather(
                    *(there.run("sh", "-c", f"exit {code}") for code in codes)
                )
                assert [end for end, _ in ends] == [Exit(code) for code in codes]

    run(main())


def test_signals_come_through(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT):
                ended, _ = await there.run("sh", "-c", f"kill -{number.value} $$")
                assert ended == Exit(128 + number, signal=number)

    run(main())


def test_what_cannot_be_run_has_its_own_codes(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            for program in ("no-such-program", "/no/such/program", "/etc/hosts/x"):
                ended, _ = await there.run(program)
                assert ended.code == 127
                assert program in str(ended.reason)
            for program in ("/usr", "/etc/hosts"):
                ended, _ = await there.run(program)
                assert ended.code == 126, program
                assert program in str(ended.reason)
            ended, _ = await there.run("true")
            assert ended == Exit(0)

    run(main())


def test_a_missing_workdir_is_said(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            with pytest.raises(ClawError, match="/no/such/place") as caught:
                await there.run("true", workdir="/no/such/place")
            assert caught.value.remedy
            ended, said = await there.run("pwd", workdir="/usr")
            assert (ended.code, said) == (0, "/usr\n")

    run(main())


def test_what_no_program_can_receive_is_a_mistake_of_the_caller(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            for argv, env in (
                ((), {}),
                (("",), {}),
                (("echo", "a\0b"), {}),
                (("true",), {"A": "b\0c"}),
                (("true",), {"A=B": "c"}),
                (("true",), {"": "c"}),
            ):
                with pytest.raises(ConfigError):
                    await there.run(*argv, env=env)
            with pytest.raises(ConfigError, match="larger than the kernel allows"):
                await there.run("true", env={f"V{n}": "x" * 100_000 for n in range(100)})
            assert (await there.run("true"))[0] == Exit(0)

    run(main())


def test_a_secret_with_a_nul_is_refused_without_being_told() -> None:
    async def main() -> None:
        with pytest.raises(ConfigError) as caught:
            async with session(spec=Spec(secrets=("KEY",)), secret={"KEY": "hidden\0value"}):
                pass
        assert "hidden" not in str(caught.value)

    run(main())


def test_the_environment_is_exactly_what_was_asked_for(engine: str) -> None:
    async def main() -> None:
        spec = Spec(env={"A": "spec", "B": "spec"}, secrets=("KEY",))
        async with session(engine, spec, secret={"KEY": "s3cret"}) as there:
            _, said = await there.run("env", env={"B": "command", "CLAW_INSTANCE": "lie"})
            found = dict(line.split("=", 1) for line in said.splitlines())
            assert found.pop("PATH").endswith("/bin")
            assert found.pop("HOME") == (
                "/home/agent" if engine == "namespaces" else f"/tmp/{there.instance.name}"
            )
            assert found.pop("TMPDIR").startswith("/tmp")
            assert found == {
                "A": "spec",
                "B": "command",
                "KEY": "s3cret",
                "USER": "agent",
                "LOGNAME": "agent",
                "LANG": "C.UTF-8",
                "CLAW_INSTANCE": there.instance.name,
            }

    run(main())


def test_names_that_are_no_text_survive(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            raw = os.fsdecode(b"\xff\xfe z\n")
            output = Output()
            await there.run("printf", "%s", raw, output=output)
            assert bytes(output.out) == b"\xff\xfe z\n"

    run(main())


def test_input_arrives_byte_for_byte(engine: str) -> None:
    async def main() -> None:
        data = os.urandom(3_000_000)
        async with session(engine) as there:
            output = Output()
            ended, _ = await there.run(
                "cat", stdin=chunks(data[:1], b"", data[1:70_000], data[70_000:]), output=output
            )
            assert ended == Exit(0)
            assert bytes(output.out) == data

    run(main())


def test_no_input_is_the_end_of_the_file(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            assert await there.run("cat") == (Exit(0), "")

    run(main())


def test_a_command_may_leave_its_input_alone_and_the_source_is_closed() -> None:
    closed: list[bool] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            closed.append(True)

    async def main() -> None:
        async with session() as there:
            ended, said = await there.run("echo", "hello", stdin=endless())
            assert (ended, said) == (Exit(0), "hello\n")
            assert closed == [True]
            # And where it closes its input explicitly, and goes on.
            ended, _ = await there.run("sh", "-c", "exec <&-; sleep 0.1; exit 3", stdin=endless())
            assert ended == Exit(3)
            assert closed == [True, True]

    run(main())


def test_a_source_that_fails_ends_the_command() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("broken source")

    async def main() -> None:
        async with session() as there:
            marker = f"source-{there.instance.name}"
            with pytest.raises(ValueError, match="broken source"):
                await there.python(f"# {marker}\nimport time; time.sleep(600)", stdin=broken())
            assert support.marked(marker) == []

    run(main())


def test_a_sink_that_fails_ends_the_command(engine: str) -> None:
    class Full(Output):
        async def stdout(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "full")

    async def main() -> None:
        async with session(engine) as there:
            with pytest.raises(OSError, match="full"):
                await there.run("sh", "-c", "echo x; sleep 600", output=Full())
            assert (await there.run("true"))[0] == Exit(0)

    run(main())


def test_a_slow_sink_slows_the_command_down_and_loses_nothing() -> None:
    class Slow(Output):
        async def stdout(self, data: bytes) -> None:
            await asyncio.sleep(0.15)  # longer than what counts as silence
            self.out.extend(data)

    async def main() -> None:
        async with session() as there:
            output = Slow()
            await there.run("head", "-c", "1500000", "/dev/zero", output=output)
            assert len(output.out) == 1_500_000

    run(main())


def test_output_is_complete_although_a_child_holds_the_pipe(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            program = "sleep 600 & head -c 2000000 /dev/zero; echo end >&2; exit 7"
            output = Output()
            ended, _ = await there.run("sh", "-c", program, output=output)
            assert (ended, len(output.out), bytes(output.err)) == (Exit(7), 2_000_000, b"end\n")

    run(main())


def test_streams_can_be_opened_by_name(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            program = "cat /dev/stdin > /dev/stdout; echo bad > /dev/stderr"
            ended, said = await there.run("sh", "-c", program, stdin=chunks(b"in "))
            assert (ended, said) == (Exit(0), "in bad\n")

    run(main())


def test_children_that_were_left_behind_live_on_until_the_teardown(engine: str) -> None:
    async def main() -> str:
        async with session(engine) as there:
            marker = f"behind-{there.instance.name}"
            left = f"# {marker}\nimport time\ntime.sleep(600)"
            program = f"import subprocess; subprocess.Popen(['/usr/bin/python3', '-c', {left!r}])"
            assert (await there.python(program))[0] == Exit(0)
            await asyncio.sleep(0.3)
            assert len(support.marked(marker)) == 1
            return marker

    assert support.marked(run(main())) == []


def test_signals_reach_the_command_and_its_children(engine: str) -> None:
    async def control() -> AsyncIterator[Control]:
        for number in (250, signal.SIGUSR1, 0, signal.SIGTERM):
            yield Signal(number)
            await asyncio.sleep(0.1)

    async def main() -> None:
        async with session(engine) as there:
            program = "trap 'echo got' USR1; echo up; while :; do sleep 0.02; done"
            started = asyncio.Event()

            class Told(Output):
                async def stdout(self, data: bytes) -> None:
                    started.set()
                    await super().stdout(data)

            async def once_started() -> AsyncIterator[Control]:
                await started.wait()
                async for one in control():
                    yield one

            ended, said = await there.run(
                "bash", "-c", program, output=Told(), control=once_started()
            )
            assert ended == Exit(143, signal=15)
            assert "got" in said

    run(main())


def test_signals_that_claw_ignores_are_not_ignored_inside() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def main() -> None:
        async with session() as there:
            assert (await there.run("sh", "-c", "kill -HUP $$"))[0] == Exit(129, signal=1)

    try:
        run(main())
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.03, 0.5])
def test_cancellation_ends_daemonised_trees(engine: str, pause: float) -> None:
    async def main() -> None:
        async with session(engine) as there:
            marker = f"cancel-{there.instance.name}"
            work = asyncio.create_task(there.python(f"# {marker}\n{support.DAEMONS}"))
            await asyncio.sleep(pause)
            work.cancel()
            if pause:
                await asyncio.sleep(0)
                work.cancel()  # once more changes nothing
            with pytest.raises(asyncio.CancelledError):
                await work
            assert support.marked(marker) == []
            assert await there.run("echo", "fine") == (Exit(0), "fine\n")

    run(main())


def test_cancellation_while_output_lingers_ends_what_was_left_behind() -> None:
    async def main() -> None:
        async with session() as there:
            marker = f"linger-{there.instance.name}"
            left = f"# {marker}\nwhile True: print('x' * 1000)"
            program = f"import subprocess; subprocess.Popen(['/usr/bin/python3', '-c', {left!r}])"
            work = asyncio.create_task(there.python(program))
            await asyncio.sleep(0.5)
            assert not work.done()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert support.marked(marker) == []

    run(main())


def test_a_supervisor_that_vanished_spends_the_instance() -> None:
    async def main() -> None:
        async with session() as there:
            with pytest.raises(SpentInstance):
                await there.python("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
            # The same while it is being cancelled: nobody says that everything has ended.
            program = (
                "import os, time; os.kill(os.getppid(), 19); print(1, flush=True); time.sleep(9)"
            )
            from claw_core.local import leash

            before, leash.END_TIMEOUT = leash.END_TIMEOUT, 0.3
            try:
                with pytest.raises(SpentInstance):
                    async with asyncio.timeout(0.5):
                        await there.python(program)
            finally:
                leash.END_TIMEOUT = before

    run(main())


def test_in_guard_the_supervisor_cannot_be_signalled() -> None:
    async def main() -> None:
        async with session("guard") as there:
            program = (
                "import os\n"
                "parent = os.getppid()\n"
                "top = int(open(f'/proc/{parent}/stat').read().rpartition(')')[2].split()[1])\n"
                "for pid in (parent, top, -parent, -top, -1):\n"
                "    try: os.kill(pid, 9)\n"
                "    except PermissionError: continue\n"
                "    print('signalled', pid)\n"
            )
            assert await there.python(program) == (Exit(0), "")

    run(main())


def test_the_command_holds_nothing_but_its_three_streams(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            # The fourth is the directory that is being listed.
            assert await there.run("ls", "/proc/self/fd") == (Exit(0), "0\n1\n2\n3\n")

    run(main())


def test_many_commands_at_once_do_not_mix(engine: str) -> None:
    async def main() -> None:
        async with session(engine) as there:
            ends = await asyncio.gather(
                *(there.run("sh", "-c", f"cat; echo {n}; exit {n}", stdin=chunks(b"in "))
                  for n in range(20))
            )  # fmt: skip
            assert ends == [(Exit(n), f"in {n}\n") for n in range(20)]

    run(main())


def test_no_descriptor_is_left_open_here(engine: str) -> None:
    async def main() -> None:
        before = support.descriptors()
        async with session(engine) as there:
            during = support.descriptors()
            for _ in range(3):
                await there.run("true", stdin=chunks(b"x"))
                work = asyncio.create_task(there.run("sleep", "600"))
                await asyncio.sleep(0.01)
                work.cancel()
                await asyncio.wait([work])
                unstarted = asyncio.create_task(there.run("sleep", "600"))
                await asyncio.sleep(0)
                unstarted.cancel()
                await asyncio.wait([unstarted])
            assert support.descriptors() == during
        await asyncio.sleep(0.05)
        assert support.descriptors() == before

    run(main())


def test_an_instance_that_is_gone_says_so() -> None:
    async def main() -> None:
        backend = support.runtime()
        subject = support.instance()
        with pytest.raises(RuntimeFault, match="not started by this process"):
            await backend.execute(subject, Command(("true",)), Output().io())
        await backend.start(subject)
        for pid in support.marked(subject.name):
            os.kill(pid, signal.SIGKILL)
        assert support.eventually(lambda: not support.marked(subject.name))
        with pytest.raises(ClawError):
            await backend.execute(subject, Command(("true",)), Output().io())
        await backend.teardown(subject)

    run(main())
