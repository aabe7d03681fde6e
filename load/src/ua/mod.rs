//! The signalling half: a SIP user agent for every participant.
