"""
Side by side with raw psycopg, plain SQLModel and advanced-alchemy.

    python -m benchmarks all
    python -m benchmarks ancestry --rows 1000,100000,1000000
    python -m benchmarks all --check --json results.json

Each job is a module with one function, ``cases(dataset)``. What it times are contenders: functions that do the same work to the same
result. The first contender is the floor, what somebody writes by hand with psycopg; every figure is a ratio to it, measured in the same
rounds.
"""
