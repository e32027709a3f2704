"""Examples, one idea a file; they use public names only.

home/           a robot lives a week in a home, and is questioned and compared (`perdure demo`)
first_day.py    an agent watches a clip, is killed, wakes, and answers with the frame that proves it
doorkeeper.py   a subclass with a tool that must never be done twice
"""
