"""Twisted's reactor on our loop. A process has but one, so each test has a process."""

import subprocess
import sys
import textwrap


def run(code: str) -> str:
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    return found.stdout.strip()


def test_reactor_runs_on_the_given_loop_and_gives_it_back() -> None:
    assert (
        run("""
        import asyncio
        from termserver.net.reactor import install, new_event_loop

        loop = new_event_loop()
        reactor = install(loop)
        found = []
        async def main():
            found.append(asyncio.get_running_loop() is loop)
            reactor.stop()
        reactor.callWhenRunning(lambda: loop.create_task(main()))
        reactor.run(installSignalHandlers=False)
        print(found, type(loop).__module__.partition(".")[0])
    """)
        == "[True] uvloop"
    )


def test_asyncio_s_loop_serves_where_there_is_no_uvloop() -> None:
    assert run("""
        import sys
        sys.modules["uvloop"] = None
        from termserver.net.reactor import new_event_loop
        loop = new_event_loop()
        print(type(loop).__module__)
        loop.close()
    """).startswith("asyncio.")


def test_installed_asyncio_reactor_is_taken_as_it_is() -> None:
    assert (
        run("""
        import asyncio
        from twisted.internet import asyncioreactor
        loop = asyncio.new_event_loop()
        asyncioreactor.install(loop)
        from twisted.internet import reactor
        from termserver.net.reactor import install
        print(install(loop) is reactor)
    """)
        == "True"
    )


def test_other_kinds_of_reactor_are_refused() -> None:
    assert "SelectReactor already" in run("""
        from twisted.internet import selectreactor
        selectreactor.install()
        import asyncio
        from termserver.errors import ConfigError
        from termserver.net.reactor import install
        loop = asyncio.new_event_loop()
        try:
            install(loop)
        except ConfigError as error:
            print(error)
        loop.close()
    """)


def test_importing_termserver_installs_no_reactor() -> None:
    assert (
        run("import sys, termserver, termserver.cli; print('twisted.internet.reactor' in sys.modules, 'twisted' in sys.modules)")
        == "False False"
    )
