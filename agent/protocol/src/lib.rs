//! rstrm/1, the protocol between agent and engine: frames, messages and handshakes, without I/O.
