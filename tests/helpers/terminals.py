"""A terminal of any width: the output of a program, and the screen after it."""

import os
import re
import threading
from types import TracebackType


class Terminal:
    """A pseudo-terminal. A program writes to `stream`; after the block, `output` is what it wrote."""

    def __init__(self, columns: int) -> None:
        import fcntl
        import struct
        import termios

        self.columns = columns
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Terminal":
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stream.close()
        self._reader.join()
        os.close(self._ours)

    def _read(self) -> None:
        content = b""
        try:
            while data := os.read(self._ours, 4096):
                content += data
        except OSError:  # on Linux: the other end is closed
            pass
        self.output = content.decode()

    def screen(self) -> list[str]:
        """The lines on the screen at the end, with all that have scrolled out of view."""
        lines: list[list[str]] = [[]]
        row = column = 0
        for number, command, character in re.findall(r"\033\[(\d*)([A-Z])|(.)", self.output, re.DOTALL):
            if command == "A":
                row = max(row - int(number or 1), 0)
            elif command == "J":
                del lines[row + 1 :]
                del lines[row][column:]
            elif command:
                raise AssertionError(f"this terminal does not know the command {command}")
            elif character == "\r":
                column = 0
            elif character == "\n":
                row += 1
            else:
                if column == self.columns:
                    row, column = row + 1, 0
                _extend(lines, row)
                line = lines[row]
                line += [" "] * (column + 1 - len(line))
                line[column] = character
                column += 1
            _extend(lines, row)
        return ["".join(line).rstrip() for line in lines]


def _extend(lines: list[list[str]], row: int) -> None:
    while len(lines) <= row:
        lines.append([])
