"""What makes a tip: conversations, playbooks, and the rules for when to speak.

Pure: time comes in as an argument (seconds of a monotonic clock for timers, Unix milliseconds for
records), ids are made by the caller, and effects are returned as data.
"""
