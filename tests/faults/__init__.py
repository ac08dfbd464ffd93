"""Fault campaign: runs are killed, disks fail, two writers start, checkpoints are damaged; nothing may be lost.

    python -m tests.faults kills --count 200 --seed 0     kills at random moments; the end equals the undisturbed run
    python -m tests.faults disk --count 200               full, read-only and failing disks at every file operation
    python -m tests.faults writers --count 30             two starts of a run at once, and readers beside a writer
    python -m tests.faults damage --count 300             damaged checkpoints, read by every command
    python -m tests.faults sweeps --count 40              signals to the queue of a sweep, or to its runs
    python -m tests.faults soak --minutes 60              memory of long runs
    python -m tests.faults all                            all of them

Run from the top of the repository, on Linux. Options of all: ``--seed``, ``--only REGEX`` (names of cases, see
``cases.py``), ``--work FOLDER`` (kept, for a look at what failed), ``--json FILE`` (figures). Each command prints a
table and one line as its summary; the exit code is 1 if anything was wrong.

The programs under test run in forked children of one process that has imported them, so that a start takes a fraction
of a second. All data are generated. What is compared, and exactly: ``outcome.py``.
"""
