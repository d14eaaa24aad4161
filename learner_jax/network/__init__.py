"""Sockets and keys: the only room that loads zmq."""
