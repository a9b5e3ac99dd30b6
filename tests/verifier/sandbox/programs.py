"""Programs for the tests of the sandbox: hostile ones, honest ones, and judges."""

# ruff: noqa: E501 - the programs are lines of their own

import textwrap

from services.verifier.sandbox.judge_script import JudgeScript
from services.verifier.sandbox.sandbox import Program, Role

# What hostile programs try: if these statements do not raise, the program is out and prints "owned".
CONTAINED = {
    "fork": "if os.fork() == 0: os._exit(0)",
    "vfork by number": "assert libc.syscall(58) >= 0",
    "clone by number, without CLONE_THREAD": "assert libc.syscall(56, 17, 0, 0, 0, 0) >= 0",
    "clone3": "assert libc.syscall(435, ctypes.create_string_buffer(88), 88) >= 0",
    "clone into a new user namespace": "assert libc.syscall(56, 0x10010100, 0, 0, 0, 0) >= 0",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "subprocess": "import subprocess; subprocess.run(['/bin/true'])",
    "execute": "os.execve('/bin/sh', ['sh', '-c', 'echo owned'], {})",
    "execute Python by its loader": "os.execve('/lib64/ld-linux-x86-64.so.2', ['ld', '/bin/echo', 'owned'], {})",
    "execute an anonymous file": "os.execve(1, ['x'], {})",
    "multiprocessing": "import multiprocessing as m; p = m.Process(target=print); p.start()",
    "socket": "import socket; socket.socket()",
    "unix datagram pair": "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "resolve a name": "import socket; socket.getaddrinfo('localhost', 80); socket.create_connection(('127.0.0.1', 1))",
    "connect from a pair": "import socket; socket.socketpair()[0].connect('/run/x')",
    "netlink": "import socket; socket.socket(16, 3)",
    "kill the parent": "os.kill(os.getppid(), 0)",
    "kill all": "os.kill(-1, 0)",
    "kill the group": "os.killpg(0, 0)",
    "queue a signal": "assert libc.syscall(129, os.getppid(), 10, ctypes.create_string_buffer(128)) == 0",
    "kill by a pidfd": "os.pidfd_open(os.getppid())",
    "signal through a descriptor's owner": "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "signal through FIOSETOWN": "fcntl.ioctl(0, 0x8901, struct.pack('i', os.getppid()))",
    "push to the terminal": "fcntl.ioctl(0, 0x5412, b'x')",
    "limit the parent": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))",
    "raise memory": "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "raise output": "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))",
    "lower processor time, to die as if killed from outside": "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
    "priority": "os.setpriority(os.PRIO_PROCESS, 0, -5)",
    "scheduler": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "affinity of the parent": "os.sched_setaffinity(os.getppid(), [0])",
    "own memory by /proc": "open('/proc/self/mem', 'rb')",
    "own map": "open('/proc/self/maps').read()",
    "parent's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    "parent's command line": "open(f'/proc/{os.getppid()}/cmdline').read()",
    "parent's descriptors": "os.listdir(f'/proc/{os.getppid()}/fd')",
    "system memory": "open('/proc/meminfo').read()",
    "own descriptors": "os.listdir('/proc/self/fd')",
    "parent's program": "os.readlink(f'/proc/{os.getppid()}/exe')",
    "the machine's secrets": "open('/etc/passwd').read()",
    "users": "import pwd; assert pwd.getpwall()",
    "list the root": "assert set(os.listdir('/')) - {'dev', 'proc', 'lib', 'lib64', 'usr', 'root'}",
    "list home": "os.listdir('/root')",
    "list temporary files": "os.listdir('/tmp')",
    "system settings": "open('/proc/sys/kernel/hostname').read()",
    "write": "open('/tmp/VERIFIER_JAIL_TEST', 'w')",
    "write beside the program": "open('VERIFIER_JAIL_TEST', 'w')",
    "shared memory": "open('/dev/shm/VERIFIER_JAIL_TEST', 'w')",
    "posix shared memory": "from multiprocessing import shared_memory as s; s.SharedMemory('VERIFIER', True, 10)",
    "system V shared memory": "assert libc.shmget(1, 4096, 0o1777) >= 0",
    "system V messages": "assert libc.msgget(1, 0o1777) >= 0",
    "message queue": "assert libc.syscall(240, b'x', 0o102, 0o777, 0) >= 0",
    "directory": "os.mkdir('/tmp/VERIFIER_JAIL_TEST')",
    "rename": "os.rename('/dev/null', '/dev/x')",
    "link": "os.link('/dev/null', '/tmp/x')",
    "symbolic link": "os.symlink('/etc/passwd', '/tmp/VERIFIER_JAIL_TEST')",
    "change mode": "os.chmod('/dev/null', 0o777)",
    "touch": "os.utime('/dev/null')",
    "fifo": "os.mkfifo('/tmp/VERIFIER_JAIL_TEST')",
    "device": "os.mknod('/tmp/VERIFIER_JAIL_TEST', 0o20666, 0x101)",
    "temporary file": "import tempfile; tempfile.TemporaryFile()",
    "memory device": "open('/dev/mem', 'rb')",
    "terminal": "open('/dev/tty')",
    "kernel log": "open('/dev/kmsg')",
    "anonymous file": "os.memfd_create('x')",
    "secret memory": "assert libc.syscall(447, 0) >= 0",
    "change directory": "os.chdir('/dev')",
    "become root": "os.setuid(0 if os.getuid() else 12345)",
    "change group": "os.setgid(0 if os.getgid() else 12345)",
    "groups": "os.setgroups([0])",
    "chroot": "os.chroot('/')",
    "host name": "assert libc.sethostname(b'x', 1) == 0",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "writable code": "assert libc.mmap(0, 4096, 7, 0x22, -1, 0) != -1",
    "anonymous code": "assert libc.mmap(0, 4096, 5, 0x22, -1, 0) != -1",
    "memory made code": "import mmap; m = mmap.mmap(-1, 4096); a = ctypes.addressof(ctypes.c_char.from_buffer(m)); "
    "assert libc.mprotect(ctypes.c_void_p(a), 4096, 5) == 0",
    "code that it printed": "os.write(2, b'\\xc3'); assert libc.mmap(0, 4096, 5, 2, 2, 0) != -1",
    "code that it prints": "assert libc.mmap(0, 4096, 5, 1, 1, 0) != -1",
    "code behind another number": "assert libc.mmap(0, 4096, 5, 2, os.dup(2), 0) != -1",
    "code behind another name": "assert libc.mmap(0, 4096, 5, 2, os.open('/dev/stdout', os.O_RDWR), 0) != -1",
    "code that it was given": "assert libc.mmap(0, 4096, 5, 2, 0, 0) != -1",
    "code without reading": "assert libc.mmap(0, 4096, 4, 2, 2, 0) != -1",
    "code of a device": "assert libc.mmap(0, 4096, 5, 2, os.open('/dev/zero', os.O_RDWR), 0) != -1",
    "code of a shared device": "assert libc.mmap(0, 4096, 5, 1, os.open('/dev/zero', os.O_RDWR), 0) != -1",
    "code of a file": "assert libc.mmap(0, 4096, 5, 2, os.open(os.__file__, os.O_RDONLY), 0) != -1",
    "a library that it printed": "os.write(2, b'\\x7fELF'); ctypes.CDLL('/proc/self/fd/2')",
    "a library that nothing has loaded": "ctypes.CDLL('libutil.so.1'); ctypes.CDLL('libthread_db.so.1')",
    "code made writable and code again": "a = ctypes.cast(libc.getpid, ctypes.c_void_p).value & -4096; "
    "assert libc.mprotect(ctypes.c_void_p(a), 4096, 3) == 0 and libc.mprotect(ctypes.c_void_p(a), 4096, 5) == 0",
    "code overwritten by the kernel": "assert libc.read(0, libc.getpid, 1) == 1",
    "code under a key": "m = libc.mmap(0, 4096, 3, 0x22, -1, 0); "
    "assert libc.syscall(329, ctypes.c_long(m), ctypes.c_long(4096), 5, -1) == 0",
    "all that is readable is code": "assert libc.personality(0x400000) != -1",
    "a shared segment of code": "assert libc.shmat(0, 0, 0o100000) != -1",
    "pages of a file rearranged": "assert libc.syscall(216, 0, 4096, 0, 0, 0) == 0",
    "a stack of return addresses": "assert libc.syscall(453, 0, ctypes.c_long(4096), 0) != -1",
    "become dumpable": "assert libc.prctl(4, 1, 0, 0, 0) == 0",
    "outlive the parent": "assert libc.prctl(1, 0, 0, 0, 0) == 0",
    "name itself": "assert libc.prctl(15, b'sshd', 0, 0, 0) == 0",
    "lift the filter": "assert libc.prctl(22, 2, 0) == 0 or libc.syscall(317, 1, 0, 0) == 0",
    "watch files": "assert libc.inotify_init() >= 0",
    "signal descriptor": "assert libc.signalfd(-1, ctypes.create_string_buffer(128), 0) >= 0",
    "copy between descriptors": "assert libc.splice(0, 0, 1, 0, 10, 0) >= 0",
    "lock memory": "assert libc.mlockall(1) == 0",
    "descriptors left open": "assert any(is_open(number) for number in range(3, 200))",
    "environment": "assert set(os.environ) - {'LANG', 'HOME', 'PATH'}",
    "arguments of the harness": "assert sys.argv != ['solution.py'] or len(sys.orig_argv) < 0",
    "repository on the path": "assert any('services' in os.listdir(p) for p in sys.path)",
    "find what was asked of the fork-server": "import gc; assert any('expected' in d for d in gc.get_objects() "
    "if type(d) is dict and '__name__' not in d and d is not globals())",
    "many descriptors": "[os.dup(0) for _ in range(100)]",
    "many threads": "[threading.Thread(target=time.sleep, args=[3], daemon=True).start() for _ in range(300)]",
    "many native threads": "t = [0] * 300\nfor _ in t: _thread.start_new_thread(time.sleep, (3,))",
    "large allocation": "bytearray(2 << 30)",
    "many allocations": "x = [bytearray(1 << 20) for _ in range(2000)]",
    "large map": "import mmap; mmap.mmap(-1, 4 << 30)",
    "grow standard output": "os.ftruncate(1, 1 << 30)",
    "rewrite standard input": "os.write(0, b'x')",
    "rewrite standard input by a map": "import mmap; mmap.mmap(0, 3)[0] = 65",
}

# Calls that kill the process.
VIOLATIONS = {
    "ptrace": "libc.ptrace(0, 0, 0, 0)",
    "io_uring": "libc.syscall(425, 1, ctypes.create_string_buffer(120))",
    "read another process": "libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0)",
    "unshare": "libc.unshare(0x10000000)",
    "setns": "libc.setns(0, 0)",
    "mount": "libc.mount(b'none', b'/', b'tmpfs', 0, 0)",
    "keys": "libc.syscall(250, 0, -4, 1)",
    "bpf": "libc.syscall(321, 0, 0, 0)",
    "userfaultfd": "libc.syscall(323, 0)",
    "perf": "libc.syscall(298, 0, 0, 0, 0, 0)",
    "descriptor of another process": "libc.syscall(438, 0, 0, 0)",
    "x32 call": "libc.syscall(0x40000000 + 39)",
    "kernel module": "libc.syscall(175, 0, 0, 0)",
    "file handle": "libc.syscall(304, 0, 0, 0)",
}

_TEMPLATE = """\
import _thread, ctypes, fcntl, os, resource, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_long

def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False

ok = False
try:
{statements}
    ok = True
except BaseException:
    pass
print("owned" if ok else "contained")
"""


def hostile_program(statements: str) -> str:
    """The program that tries the statements."""
    return _TEMPLATE.format(statements=textwrap.indent(statements, "    "))


# Each reads 21 and prints 42.
HONEST = {
    "input": "print(int(input()) * 2)",
    "readline": "import sys\ninput = sys.stdin.readline\nsys.stdout.write(str(int(input()) * 2) + '\\n')",
    "binary": "import sys\nsys.stdout.buffer.write(b'%d\\n' % (int(sys.stdin.buffer.read()) * 2))",
    "descriptors": "import os\nos.write(1, b'%d\\n' % (int(os.read(0, 100)) * 2))",
    "open 0": "print(int(open(0).read()) * 2)",
    "open /dev/stdin": "print(int(open('/dev/stdin').read()) * 2)",
    "fileinput": "import fileinput\nfor line in fileinput.input(): print(int(line) * 2)",
    "main guard": "def main():\n    print(int(input()) * 2)\nif __name__ == '__main__':\n    main()",
    "exit": "print(int(input()) * 2)\nexit()",
    "quit": "print(int(input()) * 2)\nquit(0)",
    "sys.exit": "import sys\nprint(int(input()) * 2)\nsys.exit(0)",
    "os._exit after flush": "import os\nprint(int(input()) * 2, flush=True)\nos._exit(0)",
    "atexit": "import atexit\natexit.register(print, int(input()) * 2)",
    "print to a file left open": "out = open(1, 'w', closefd=False)\nout.write(str(int(input()) * 2))",
    "write through a duplicate": "import os\nout = os.fdopen(os.dup(1), 'w')\nprint(int(input()) * 2, file=out)",
    "replace stdout": "import io, sys\nbuffer = io.StringIO()\nreal, sys.stdout = sys.stdout, buffer\n"
    "print(int(input()) * 2)\nreal.write(buffer.getvalue())",
    "fast output class": "import io, os, sys\nSIZE = 8192\nclass Fast(io.IOBase):\n    def __init__(self):\n"
    "        self.buffer = io.BytesIO()\n        self.write = lambda s: self.buffer.write(s.encode())\n"
    "    def flush(self):\n        os.write(1, self.buffer.getvalue()); self.buffer = io.BytesIO()\n"
    "sys.stdout = Fast()\nprint(int(input()) * 2)",
    "thread with a large stack": "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\n"
    "def deep(n):\n    return 0 if n == 0 else 1 + deep(n - 1)\n"
    "def main():\n    print(int(input()) * 2 + deep(50000) - 50000)\n"
    "t = threading.Thread(target=main)\nt.start()\nt.join()",
    "thread that outlives the main one": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), print(int(input()) * 2))).start()",
    "daemon threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    "print(int(input()) * 2)",
    "thread pool": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
    "    print(sum(pool.map(int, [input()] * 2)))",
    "raised stack": "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 27, -1))\nprint(int(input()) * 2)",
    "own signal handler": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "signal.signal(signal.SIGALRM, lambda *_: print(42))\nsignal.setitimer(signal.ITIMER_REAL, 0.02)\nsignal.pause()",
    "asyncio": "import asyncio\nasync def main():\n    await asyncio.sleep(0.01)\n    print(int(input()) * 2)\n"
    "asyncio.run(main())",
    "asyncio threads": "import asyncio\nasync def main():\n    print(2 * int(await asyncio.to_thread(input)))\n"
    "asyncio.run(main())",
    "standard library": "import numbers, sqlite3, zlib, bz2, lzma, ssl, unicodedata, mmap, xml.parsers.expat, hashlib, uuid, calendar, locale, csv, xml.etree.ElementTree\n"
    "import secrets, difflib, pprint, graphlib, zoneinfo, logging, argparse, subprocess, socket, unittest, ctypes\n"
    "sqlite3.connect(':memory:').execute('select 1')\nhashlib.sha256(b'').hexdigest()\nuuid.uuid4()\n"
    "secrets.token_hex()\nprint(int(input()) * 2)",
    "large integers": "import sys\nsys.set_int_max_str_digits(0)\nx = int(input())\nassert len(str(7**20000)) > 0\nprint(x * 2)",
    "dataclass, pickle, typing": "import dataclasses, pickle, typing\n@dataclasses.dataclass\nclass A:\n    x: int\n"
    "typing.get_type_hints(A)\nprint(pickle.loads(pickle.dumps(A(int(input())))).x * 2)",
    "doctest": "def f(x):\n    '''\n    >>> f(2)\n    4\n    '''\n    return x * 2\n"
    "import doctest\nassert doctest.testmod().attempted == 1\nprint(f(int(input())))",
    "byte order mark": "\ufeffprint(int(input()) * 2)",
    "windows lines": "x = int(input())\r\nprint(x * 2)\r\n",
    "encoding line": "# -*- coding: latin-1 -*-\ns = 'é'\nassert len(s) == 1\nprint(int(input()) * 2)",
    "warnings": "import warnings\nwarnings.warn('x')\ns = '\\d'\nprint(int(input()) * 2)",
    "null device": "open('/dev/null', 'w').write('x')\nprint(int(input()) * 2)",
    "randomness": "import os, random\nos.urandom(8)\nopen('/dev/urandom', 'rb').read(8)\nrandom.random()\nprint(int(input()) * 2)",
    "processors": "import os\nassert os.cpu_count() is None or os.cpu_count() > 0\nprint(int(input()) * 2)",
    "platform": "import platform, time\nplatform.system()\ntime.strftime('%c')\nprint(int(input()) * 2)",
}


def judge_program(*asserts: str, entry_point: str = "f") -> Program:
    """A judge that runs these tests."""
    script = JudgeScript("", asserts, entry_point, calls_check=False, is_partial=False)
    return Program(script.pack(), Role.JUDGE)
