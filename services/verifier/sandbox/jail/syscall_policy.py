"""Which system calls jailed code may make, with their numbers on x86-64 and arm64."""

from dataclasses import dataclass
from enum import Enum

_NUMBERS_OF_ALLOWED = """
read 0 63
write 1 64
readv 19 65
writev 20 66
pread64 17 67
pwrite64 18 68
lseek 8 62
close 3 57
close_range 436 436
dup 32 23
dup2 33 -
dup3 292 24
fstat 5 80
stat 4 -
lstat 6 -
newfstatat 262 79
statx 332 291
open 2 -
openat 257 56
access 21 -
faccessat 269 48
faccessat2 439 439
readlink 89 -
readlinkat 267 78
getcwd 79 17
getdents64 217 61
ftruncate 77 46
fsync 74 82
fadvise64 221 223
pipe 22 -
pipe2 293 59
poll 7 -
ppoll 271 73
select 23 -
pselect6 270 72
epoll_create1 291 20
epoll_ctl 233 21
epoll_wait 232 -
epoll_pwait 281 22
eventfd2 290 19
sendto 44 206
recvfrom 45 207
shutdown 48 210
getsockname 51 204
getpeername 52 205
getsockopt 55 209
munmap 11 215
mremap 25 216
madvise 28 233
brk 12 214
rt_sigaction 13 134
rt_sigprocmask 14 135
rt_sigreturn 15 139
rt_sigpending 127 136
rt_sigsuspend 130 133
rt_sigtimedwait 128 137
sigaltstack 131 132
pause 34 -
alarm 37 -
setitimer 38 103
getitimer 36 102
nanosleep 35 101
clock_nanosleep 230 115
clock_gettime 228 113
clock_getres 229 114
gettimeofday 96 169
time 201 -
times 100 153
getpid 39 172
gettid 186 178
getppid 110 173
getpgrp 111 -
getuid 102 174
geteuid 107 175
getgid 104 176
getegid 108 177
getresuid 118 148
getresgid 120 150
getgroups 115 158
uname 63 160
sysinfo 99 179
getrusage 98 165
getrlimit 97 163
sched_yield 24 124
sched_getaffinity 204 123
getcpu 309 168
futex 202 98
futex_waitv 449 449
set_robust_list 273 99
set_tid_address 218 96
rseq 334 293
restart_syscall 219 128
membarrier 324 283
exit 60 93
exit_group 231 94
getrandom 318 278
wait4 61 260
waitid 247 95
"""

# Allowed for some arguments only; syscall_filter.py has the conditions.
_NUMBERS_OF_CHECKED = """
mmap 9 222
mprotect 10 226
fcntl 72 25
ioctl 16 29
clone 56 220
prlimit64 302 261
socketpair 53 199
"""

# Said to be missing: glibc then makes the older call, whose arguments a filter can read.
_NUMBERS_OF_ABSENT = """
clone3 435 435
openat2 437 437
"""

# No honest program makes these: the process is killed and its run is a violation.
_NUMBERS_OF_VIOLATIONS = """
io_uring_setup 425 425
io_uring_enter 426 426
io_uring_register 427 427
ptrace 101 117
mount 165 40
umount2 166 39
pivot_root 155 41
open_tree 428 428
move_mount 429 429
fsopen 430 430
fsconfig 431 431
fsmount 432 432
mount_setattr 442 442
unshare 272 97
setns 308 268
bpf 321 280
keyctl 250 219
add_key 248 217
request_key 249 218
userfaultfd 323 282
process_vm_readv 310 270
process_vm_writev 311 271
process_madvise 440 440
pidfd_getfd 438 438
perf_event_open 298 241
kexec_load 246 104
kexec_file_load 320 294
init_module 175 105
finit_module 313 273
delete_module 176 106
open_by_handle_at 304 265
modify_ldt 154 -
iopl 172 -
ioperm 173 -
"""

# How a compiled program starts: from a descriptor. Like others, it can map no code.
_NUMBERS_FOR_NATIVE = """
arch_prctl 158 -
"""
_NUMBERS_OF_CHECKED_FOR_NATIVE = """
execveat 322 281
"""

# Another language's interpreter needs these too: it is executed under the filter. Landlock says which may be.
_NUMBERS_FOR_COMMANDS = """
execve 59 221
arch_prctl 158 -
"""


# Only the folder for files can be written to; links, pipes and devices can be made nowhere.
_NUMBERS_FOR_FILES = """
creat 85 -
mkdir 83 -
mkdirat 258 34
rmdir 84 -
unlink 87 -
unlinkat 263 35
rename 82 -
renameat 264 38
renameat2 316 276
truncate 76 45
fallocate 285 47
fdatasync 75 83
flock 73 32
chdir 80 49
fchdir 81 50
chmod 90 -
fchmod 91 52
fchmodat 268 53
utimensat 280 88
"""


class Purpose(Enum):
    """What a process is to run under a policy."""

    PYTHON = "python"
    FILES = "files"
    """Python, with a folder for files."""
    COMMAND = "command"
    """Another language's interpreter, or a compiler's stage."""
    NATIVE = "native"
    """A compiled program."""


_ALLOWED_FOR = {
    Purpose.FILES: _NUMBERS_FOR_FILES,
    Purpose.COMMAND: _NUMBERS_FOR_COMMANDS,
    Purpose.NATIVE: _NUMBERS_FOR_NATIVE,
}
_CHECKED_FOR = {Purpose.NATIVE: _NUMBERS_OF_CHECKED_FOR_NATIVE}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type: its `uname` name, its number for seccomp, its column in the tables here."""

    name: str
    audit_number: int
    column: int
    has_x32: bool


X86_64 = Machine("x86_64", 0xC000003E, 1, True)
AARCH64 = Machine("aarch64", 0xC00000B7, 2, False)


def _read_table(table: str, machine: Machine) -> dict[str, int]:
    rows = (line.split() for line in table.strip().splitlines())
    return {row[0]: int(row[machine.column]) for row in rows if row[machine.column] != "-"}


@dataclass(frozen=True, slots=True)
class SyscallPolicy:
    """Call numbers by name on one machine type. A call in none of the four groups fails with EPERM."""

    machine: Machine
    allowed: dict[str, int]
    checked: dict[str, int]
    absent: dict[str, int]
    violations: dict[str, int]
    purpose: Purpose


def build_syscall_policy(machine: Machine, purpose: Purpose = Purpose.PYTHON) -> SyscallPolicy:
    return SyscallPolicy(
        machine,
        _read_table(_NUMBERS_OF_ALLOWED + _ALLOWED_FOR.get(purpose, "").lstrip(), machine),
        _read_table(_NUMBERS_OF_CHECKED + _CHECKED_FOR.get(purpose, "").lstrip(), machine),
        _read_table(_NUMBERS_OF_ABSENT, machine),
        _read_table(_NUMBERS_OF_VIOLATIONS, machine),
        purpose,
    )
