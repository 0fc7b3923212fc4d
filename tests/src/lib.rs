//! Behaviour of Adit through its public doors.
