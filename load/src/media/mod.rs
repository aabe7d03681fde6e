//! The media half: sockets, what is sent, and the checks of what comes.
