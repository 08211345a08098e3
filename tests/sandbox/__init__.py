"""Tests of the sandbox: raw text over sockets, no client of ours."""
