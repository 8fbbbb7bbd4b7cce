"""Reads gates without Keytally, by docs/FORMAT.md alone.

Prints one line of JSON for each file: its plans and keys as `keytally list --json` does, or null if
the file is not a gate. Counts are those of the current time.

    python3 cli/tests/format/reader.py api.gate
"""

import calendar
import json
import re
import struct
import sys
import time
from math import gcd

VERSION, GATE, HINTS, EXTENDED = 2, 2, 1, 2
WEEK, DAY_S = 32, 86_400
CYCLE_S = 146_097 * DAY_S
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NAME_8, NAME_16 = rb"[a-z0-9]{1,8}", rb"[a-z0-9_-]{1,16}"
NAMES = {1: "second", 60: "minute", 3600: "hour", DAY_S: "day"}


class Invalid(Exception):
    """The file is not a gate of this version."""


def require(condition):
    if not condition:
        raise Invalid


def low(word):
    return word & 0xFFFF_FFFF


def high(word):
    return word >> 32


def text(*words):
    """Returns the name in these words."""
    return struct.pack(f"<{len(words)}Q", *words).split(b"\0")[0].decode("latin-1")


def name(kind, *words):
    """Returns the name of this kind in these words; "" if they do not hold one."""
    data = struct.pack(f"<{len(words)}Q", *words)
    found = data.split(b"\0")[0]
    padded = kind != NAME_8 or not data[len(found) :].strip(b"\0")
    return found.decode("latin-1") if padded and re.fullmatch(kind, found) else ""


class Window:
    """A length of time, a week or a month."""

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __init__(self, number):
        self.seconds, self.mark = number & (1 << 22) - 1, number >> 22
        by_mark = {0: 0 < self.seconds <= 31 * DAY_S, WEEK: self.seconds == 7 * DAY_S}
        require(by_mark.get(self.mark, self.mark < WEEK and self.seconds == 31 * DAY_S))

    @property
    def name(self):
        if self.mark:
            return "week" if self.mark == WEEK else "month"
        return NAMES.get(self.seconds, f"{self.seconds}s")

    @property
    def grid_s(self):
        return DAY_S if self.mark else self.seconds

    def start_s(self, moment_s):
        """Returns the beginning of the window that contains a moment."""
        if self.mark == 0:
            return moment_s - moment_s % self.seconds
        if self.mark == WEEK:
            # The epoch was a Thursday.
            return moment_s - (moment_s + 3 * DAY_S) % (7 * DAY_S)
        # The calendar repeats after 400 years. Python has no years above 9999.
        cycles, moment_s = divmod(moment_s, CYCLE_S)
        moment = time.gmtime(moment_s)
        year, month = moment.tm_year, moment.tm_mon
        if moment.tm_mday < self.first_day(year, month):
            year, month = (year - 1, 12) if month == 1 else (year, month - 1)
        first = calendar.timegm((year, month, self.first_day(year, month), 0, 0, 0))
        return cycles * CYCLE_S + first

    def first_day(self, year, month):
        return min(self.mark, calendar.monthrange(year, month)[1])


class Tally:
    """What a tally counts: its section, and the layout of its word."""

    def __init__(self, section, algorithm, windows, widths):
        self.section, self.sliding = section, algorithm == 1
        self.windows, self.widths = windows, widths
        counts = 2 if self.sliding else 1
        order = [(window.seconds, window.mark) for window in windows]
        require(order == sorted(set(order)) and all(1 <= width <= 32 for width in widths))
        require(not self.sliding or not any(window.mark for window in windows))
        self.stamp_bits = 64 - sum(widths) * counts
        require(12 <= self.stamp_bits <= 40)
        self.unit_ms = 1000 * gcd(*(window.grid_s for window in windows))

    def read(self, word, limits, now_ms):
        """Returns the use of each quota at a time, and when the tally was last changed."""
        stamp_ms = (word >> 64 - self.stamp_bits) * self.unit_ms
        at_ms, shift, quotas, used_any = max(now_ms, stamp_ms), 64 - self.stamp_bits, [], False
        for window, width, limit in zip(self.windows, self.widths, limits):
            counts = []
            for _ in range(2 if self.sliding else 1):
                shift -= width
                counts.append(word >> shift & (1 << width) - 1)
            used_any = used_any or any(counts)
            start_s = window.start_s(at_ms // 1000)
            current, previous = counts[0], (counts + [0])[1]
            if stamp_ms // 1000 < start_s:
                last = window.start_s(start_s - 1)
                previous = current if stamp_ms // 1000 >= last else 0
                current = 0
            if self.sliding:
                length = window.seconds * 1000
                current += -(-previous * (length - (at_ms - start_s * 1000)) // length)
            limit = min(limit, (1 << width) - 1)
            quotas.append(
                {
                    "section": self.section,
                    "window": window.name,
                    "limit": limit,
                    "remaining": max(limit - current, 0),
                }
            )
        return quotas, stamp_ms if used_any else None


class Gate:
    def __init__(self, data):
        require(len(data) >= 64 and len(data) % 64 == 0)
        self.words = struct.unpack(f"<{len(data) // 8}Q", data)
        head = self.line(0)
        require(data[:8] == b"keytally" and low(head[1]) == VERSION and high(head[1]) == GATE)
        require(head[2] == len(data))
        self.capacity, header_lines = low(head[3]), high(head[3])
        flags, shape = low(head[4]), high(head[4])
        described = flags >> 8 & 0xFF
        require(flags & 0xFF in (HINTS, HINTS | EXTENDED))
        require(0 < self.capacity <= 1 << 26)
        last, before = flags >> 16 & 0xFF, flags >> 24
        require(last > 0 or before == 0)
        require(all(self.capacity % factor == 0 for factor in (last, last * before) if factor))
        self.plan_slots = high(head[7])
        require(0 < self.plan_slots <= 256)
        first = self.layout("key", shape >> 16, shape & 0xFFFF, head[5:7], head[7])
        self.prefix = name(NAME_8, self.line(1)[4])
        self.extended = flags & EXTENDED != 0
        self.extension = 6 + (self.plan_slots + 1) // 2
        self.tallies, self.teams, self.scopes = [first], 0, []
        expected = self.extension
        if self.extended:
            require(len(self.words) >= 8 * (self.extension + 29))
            expected = self.read_extension(first)
        require(header_lines == expected)
        self.records_at = header_lines
        self.hints_at = self.records_at + self.capacity
        self.entries_at = self.hints_at + (self.capacity + 7) // 8
        self.teams_at = self.entries_at
        if self.extended:
            self.teams_at += (self.capacity * self.entry_words + 7) // 8
        require(len(self.words) == 8 * (self.teams_at + self.teams))
        own = [tally for tally in self.tallies if tally.section == "key"]
        windows = [None, *(window.name for tally in own for window in tally.windows)]
        require(described < len(windows))
        self.described = windows[described]
        self.envs = [name(NAME_8, word) for line in (4, 5) for word in self.line(line)]
        require(self.words[8 * 6] and self.prefix)
        if not self.extended:
            most = [(1 << width) - 1 for width in first.widths]
            limits = self.plan_limits(0, 0)
            require(all(0 < limit <= top for limit, top in zip(limits, most)))

    def line(self, number):
        return self.words[8 * number : 8 * number + 8]

    @staticmethod
    def layout(section, algorithm, count, windows, widths):
        require(algorithm in (0, 1) and 1 <= count <= 4 and not low(widths) >> 8 * count)
        numbers = [half(word) for word in windows for half in (low, high)][:count]
        return Tally(
            section,
            algorithm,
            [Window(number) for number in numbers],
            [widths >> 8 * index & 0xFF for index in range(count)],
        )

    def read_extension(self, first):
        """Reads the extension, and returns the number of lines of the header."""
        counts = self.line(self.extension)[1]
        self.teams, number = low(counts), high(counts)
        require(1 <= number <= 8)
        self.tallies = []
        for index in range(number):
            line = self.line(self.extension + 1 + index)
            kind, _, count, algorithm = (line[0] >> 8 * byte & 0xFF for byte in range(4))
            require(kind < 3)
            section = ("key", "team", name(NAME_16, *line[1:3]))[kind]
            require(section and (kind < 2 or section not in ("key", "team")))
            # The key's tallies are first, and those of each section follow each other.
            sections = [tally.section for tally in self.tallies]
            is_same = sections[-1:] == [section]
            require(is_same or (section not in sections and (index == 0) == (section == "key")))
            self.tallies.append(self.layout(section, algorithm, count, line[3:5], line[5]))
        require(vars(self.tallies[0]) == vars(first))
        in_teams = sum(tally.section == "team" for tally in self.tallies)
        require(in_teams <= (2 if self.teams else 0))
        for index in range(64):
            at = 8 * (self.extension + 9) + 2 * index
            scope = text(*self.words[at : at + 2])
            if not scope:
                break
            self.scopes.append(scope)
        own = sum(tally.section != "team" for tally in self.tallies) - 1
        words = 1 + (self.teams > 0) + own
        self.entry_words = 1 << (words - 1).bit_length()
        lines = self.extension + 29 + (self.plan_slots * number * 4 + 7) // 8
        return -(-lines // 64) * 64

    def plan_name(self, number):
        """Returns the name of a plan; "" if there is none or it is damaged."""
        if number >= self.plan_slots:
            return ""
        at = 8 * 6 + 4 * number
        for index, tally in enumerate(self.tallies):
            limits = self.plan_limits(number, index)
            if limits is not None and not all(limits[: len(tally.windows)]):
                return ""
        return name(NAME_16, *self.words[at : at + 2])

    def plan_limits(self, plan, tally):
        """Returns the limits of a tally under a plan; None if it does not limit it."""
        if plan >= self.plan_slots or not self.words[8 * 6 + 4 * plan]:
            return [0] * 4
        at = 8 * 6 + 4 * plan + 2
        if self.extended:
            at = 8 * (self.extension + 29) + 4 * (plan * len(self.tallies) + tally)
        limits = [half(word) for word in self.words[at : at + 2] for half in (low, high)]
        return limits if any(limits) or not self.extended else None

    def stable(self, at, number):
        """Returns the words of a line, those of the redo record if it is being written, or None if
        it is damaged. The second value is whether they are those of the redo record."""
        line = self.line(at)
        sequence = line[7] >> 18 & 0x3FFF
        if sequence % 2 == 0:
            return line, False
        redo = self.line(2)
        named = low(self.line(3)[0]) == number + 1
        if named and redo[7] >> 18 & 0x3FFF == (sequence + 1) & 0x3FFF:
            return redo, True
        return None, False

    def key(self, number, now_ms):
        """Returns the key in a record; None if there is none or it is damaged."""
        at = self.records_at + number
        record, is_redo = self.stable(at, number)
        if record is None or record[0] == 0:
            return None
        key_id, meta = record[0], record[7]
        account, expires = low(record[6]), high(record[6])
        env, pepper, revoked = meta & 0xF, meta >> 4 & 3, meta >> 6 & 3 != 0
        plan = meta >> 8 & 0xFF
        state = "revoked" if revoked else "active"
        if not revoked and expires and now_ms >= 1000 * expires:
            state = "expired"
        entry = 8 * self.entries_at + number * (self.entry_words if self.extended else 0)
        scopes, team = 0, 0
        if self.extended:
            scopes = self.words[8 * self.extension] if is_redo else self.words[entry]
            if self.teams:
                team = high(record[1]) if is_redo else low(self.words[entry + 1])
        quotas, last_used, others = [], None, 1 + (self.teams > 0)
        for index, tally in enumerate(self.tallies):
            limits = self.plan_limits(plan, index)
            if tally.section == "team":
                word, limits = self.team_tally(index, team, limits)
            elif index == 0:
                word = self.line(at)[1]
            else:
                word, others = self.words[entry + others], others + 1
            if word is None:
                continue
            use, changed = tally.read(word, limits or [0] * 4, now_ms)
            if tally.section != "team" and changed is not None:
                last_used = max(last_used or 0, changed)
            quotas += use if limits else []
        hint = struct.pack("<Q", self.words[8 * self.hints_at + number])[:4]
        shown = hint.decode() if all(0x21 <= byte <= 0x7E for byte in hint) else ""
        env = self.envs[env]
        return {
            "key_id": base62(key_id),
            "account": account,
            "env": env or None,
            "plan": self.plan_name(plan) or None,
            "hint": "_".join(filter(None, (self.prefix, env))) + "_…" + shown,
            "state": state,
            "pepper": pepper,
            "quotas": quotas,
            "scopes": [name for bit, name in enumerate(self.scopes) if scopes >> bit & 1],
            "last_used": rfc3339(None if last_used is None else last_used // 1000),
            "expires": rfc3339(expires or None),
        }

    def team_tally(self, index, team, limits):
        """Returns the word of a team's tally and its limits."""
        if not 0 < team <= self.teams:
            return None, None
        line, _ = self.stable(self.teams_at + team - 1, self.capacity + team - 1)
        number = [at for at, tally in enumerate(self.tallies) if tally.section == "team"].index(index)
        if line is not None and high(line[0]) == 1:
            limits = self.plan_limits(line[7] >> 8 & 0xFF, index)
            if line[7] & 1:
                words = line[3 + 2 * number : 5 + 2 * number]
                limits = [half(word) for word in words for half in (low, high)]
                limits = limits if any(limits) else None
        return self.line(self.teams_at + team - 1)[1 + number], limits

    def listing(self, now_ms):
        keys = (self.key(number, now_ms) for number in range(self.capacity))
        names = (self.plan_name(number) for number in range(self.plan_slots))
        plans = []
        for name in names:
            if not name:
                break
            plans.append(name)
        return {
            "capacity": self.capacity,
            "prefix": self.prefix,
            "plans": plans,
            "described": self.described,
            "keys": [key for key in keys if key],
        }


def rfc3339(moment_s):
    if moment_s is None:
        return None
    # Times after the year 9999 are shown as its end.
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(moment_s, 253_402_300_799)))


def base62(number):
    digits = ""
    for _ in range(11):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def read(path, now_ms):
    with open(path, "rb") as file:
        data = file.read()
    try:
        return Gate(data).listing(now_ms)
    except Invalid:
        return None


if __name__ == "__main__":
    now_ms = time.time_ns() // 1_000_000
    for path in sys.argv[1:]:
        print(json.dumps(read(path, now_ms), ensure_ascii=False))
