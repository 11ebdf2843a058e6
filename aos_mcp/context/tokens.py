"""Token counts without a tokenizer: an estimate by classes of characters.

Promises: never zero for text; JSON, hexadecimal and base64, which `bytes / 4` undercounts by a third to a half, are not
undercounted; the count of two texts joined is the sum of theirs within `JOIN_SLACK`. It leans to the high side for a
modern tokenizer of about 200,000 words, since what is estimated here is held against a window and a budget. What a
provider bills comes from its own figures.

How: the text becomes one class letter for each byte of its UTF-8 form, and tokens are counted as places where classes
meet and as pieces of long runs. Both are searches for fixed byte strings, so it runs at the speed of memory.
"""

from __future__ import annotations

JOIN_SLACK = 8
