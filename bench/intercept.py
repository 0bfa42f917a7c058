"""What `koura run` costs: system calls of a C program as they are and under interception, calls of ours and calls that pass."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.table import Table

ROUNDS = 5
PROGRAM = r"""
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

static int u, t, key, ready, one = 1;
static unsigned char policy[16] = {2, 0, 18, 0, 4, 0, 1}, buffer[65536];
static unsigned char request[16] = {2, 5, 0, 3, 2, 0, 0, 0, 7};

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1e9 + at.tv_nsec;
}
static int getppid_(void) { return syscall(SYS_getppid) < 0; }
static int udp_socket(void) { return close(socket(AF_INET, SOCK_DGRAM, 0)); }
static int set_other(void) { return setsockopt(u, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); }
static int get_other(void) { socklen_t n = sizeof one; int v; return getsockopt(u, SOL_SOCKET, SO_TYPE, &v, &n); }
static int poll_now(void) { struct pollfd p = {ready, POLLIN, 0}; return poll(&p, 1, 0) != 1; }
static int poll_short(void) { struct pollfd p = {ready, POLLIN, 0}; return poll(&p, 1, 1) != 1; }
static int key_socket(void) { return close(socket(15, SOCK_RAW, 2)); }
static int set_policy(void) { return setsockopt(u, IPPROTO_IP, 16, policy, 16); }
static int get_policy(void) { socklen_t n = 16; policy[4] = 0; int r = getsockopt(u, IPPROTO_IP, 16, policy, &n); policy[4] = 4; return r; }
static int ask(void) {
    struct pollfd p = {key, POLLIN, 0};
    return write(key, request, 16) != 16 || poll(&p, 1, 1) != 1 || read(key, buffer, sizeof buffer) < 16;
}

static double each(int (*call)(void), double ns) {
    if (call()) return -1;
    long count = 0, burst = 1;
    double start = now(), spent = 0;
    while ((spent = now() - start) < ns) {
        for (long i = 0; i < burst; i++) if (call()) return -1;
        count += burst;
        if (spent < ns / 100) burst *= 2;
    }
    return spent / count;
}

int main(int argc, char **argv) {
    struct { const char *name; int (*call)(void); } calls[] = {
        {"getppid", getppid_}, {"udp_socket", udp_socket}, {"set_other", set_other}, {"get_other", get_other}, {"poll_now", poll_now},
        {"poll_short", poll_short}, {"key_socket", key_socket}, {"set_policy", set_policy}, {"get_policy", get_policy}, {"ask", ask},
    };
    double ns = atof(argv[1]) * 1e9;
    int pipes[2];
    if (pipe(pipes) || write(pipes[1], "x", 1) != 1) return 1;
    ready = pipes[0];
    u = socket(AF_INET, SOCK_DGRAM, 0);
    key = socket(15, SOCK_RAW, 2);
    putchar('{');
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
        printf("%s\"%s\": %f", i ? ", " : "", calls[i].name, each(calls[i].call, ns));
    puts("}");
    return argc < 2;
}
"""
SHOWN = {
    "getppid": ("getppid", "passes"),
    "udp_socket": ("socket(AF_INET) and close", "passes"),
    "set_other": ("setsockopt(SO_REUSEADDR)", "passes"),
    "get_other": ("getsockopt(SO_TYPE)", "passes"),
    "poll_now": ("poll of one descriptor, 0 ms", "passes"),
    "poll_short": ("poll of one descriptor that is no key socket, 1 ms", "looked at"),
    "key_socket": ("socket(AF_KEY) and close", "answered"),
    "set_policy": ("setsockopt(IP_IPSEC_POLICY)", "answered"),
    "get_policy": ("getsockopt(IP_IPSEC_POLICY)", "answered"),
    "ask": ("PF_KEY: write, poll for 1 ms, read", "held"),
}


def run(seconds: float) -> Iterable[Table]:
    """Both, by turns, the best of some rounds; nothing without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("intercept: no C compiler here; Python's own cost would hide what is measured")
        return
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "calls"
        subprocess.run([compiler, "-O2", "-x", "c", "-o", program, "-"], input=PROGRAM, text=True, check=True)
        # The fewer seconds each takes, the better do the turns even out what else the machine does.
        words = [str(program), str(seconds / ROUNDS)]
        plain: dict[str, float] = {}
        intercepted: dict[str, float] = {}
        for _ in range(ROUNDS):
            _best(plain, words)
            _best(intercepted, [sys.executable, "-m", "koura", "run", "--", *words])
    rows = [(name, fate, _shown(plain[key]), _shown(intercepted[key]), _ratio(plain[key], intercepted[key]))
            for key, (name, fate) in SHOWN.items()]  # fmt: skip
    yield Table(
        "intercept", "Interception",
        "Nanoseconds (wall clock) for a system call of a C program, alone and under `koura run` with a private daemon; best of "
        f"{ROUNDS} rounds of each by turns. A call that passes is not seen by the supervisor; every other one is a switch to the "
        "supervisor and back, two more to the daemon where it is asked, all three in Python.",
        ("call", "under koura run it", "alone", "koura run", "ratio"), tuple(rows),
    )  # fmt: skip


def _best(known: dict[str, float], words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"KOURA_SOCKET": ""})
    for name, ns in json.loads(done.stdout).items():
        known[name] = min(ns, known.get(name, ns))


def _shown(ns: float) -> str:
    return f"{ns:,.0f}" if ns >= 0 else "-"


def _ratio(alone: float, with_us: float) -> str:
    return f"{with_us / alone:.2f}" if alone > 0 and with_us > 0 else "-"
