"""`gateway certify`: proof, on this machine, that no cut of a model's stream goes unnoticed.

Every recorded answer of a model server is cut after every byte, and what is left of it is played
to every dialect through the codec, the engine, the encoder and the transport that serve. Strict
readers, which share no code with them, judge the bytes that a client gets (`judge.py` has the
rules). One short recording for each dialect also goes over real sockets, where the model server
closes its connection or falls silent.
"""
