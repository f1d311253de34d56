"""Takes from a Linux interpreter what Windows' Python lacks, before the project is imported.

Put this folder on PYTHONPATH. Modules of POSIX cannot be imported, and their functions and constants are missing. The
modules of Python imported first decide by `sys.platform`, so they keep the functions they need.
"""

# ruff: noqa: F401
import asyncio
import concurrent.futures.process
import contextlib
import functools
import multiprocessing.popen_fork
import multiprocessing.popen_spawn_posix
import multiprocessing.resource_tracker
import os
import signal
import socket
import subprocess
import sys
import warnings

with contextlib.suppress(ImportError):  # missing before the environment is made
    import psutil

MODULES = "fcntl grp pty resource syslog termios tty uvloop"
if sys.version_info >= (3, 11):  # before, posixpath cannot be without it
    MODULES += " pwd"
MISSING = {
    os: "fork forkpty register_at_fork sched_getaffinity sched_setaffinity getgid getegid killpg "
    "getpgid setpgid setsid getsid mkfifo mknod chown fchown getloadavg nice sysconf wait3 wait4 "
    "O_NONBLOCK O_NOFOLLOW O_NOCTTY O_DIRECTORY O_CLOEXEC WNOHANG set_blocking",
    signal: "SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGKILL SIGPIPE pthread_sigmask alarm setitimer sigwait",
    socket: "AF_UNIX",
    asyncio: "open_unix_connection start_unix_server",
}

socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)  # Windows has one too, over TCP
multiprocessing.popen_fork.Popen.kill = lambda self: self._send_signal(9)  # Windows ends a process without a signal
subprocess.Popen.kill = lambda self: self.send_signal(9)
multiprocessing.resource_tracker._HAVE_SIGMASK = False
for module in MODULES.split():
    sys.modules[module] = None  # an import of it raises ModuleNotFoundError
for owner, names in MISSING.items():
    for name in names.split():
        if hasattr(owner, name):
            delattr(owner, name)

with contextlib.suppress(ImportError), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says that it has no locks but files; those of Windows end with a process
    import filelock
