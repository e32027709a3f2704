"""A week in a home: a Gymnasium environment in which a robot sees pixels, hears words and is asked afterwards.

    catalogue.py   which kinds of fixtures, items and people there are
    plan.py        the rooms and fixtures of one home, drawn from a seed
    house.py       everything that changes: states, places, people, the robot
    mechanisms.py  hidden causes between fixtures
    residents.py   people who live by habits and break them; routines.py: what a day of theirs is made of
    speech.py      what they say
    errands.py     what is asked of the robot, and how it is judged
    lesson.py      the first hour, in which things are shown and named
    truth.py       all that happened, and what of it could be seen
    view.py        which cells the camera sees; sprites.py, render.py: what they look like
    world.py       `HomeEnv`
    expert.py      a scripted robot that knows the true state

Needs numpy and gymnasium only.
"""
