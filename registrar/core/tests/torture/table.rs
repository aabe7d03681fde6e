//! What each message of RFC 4475 and RFC 5118 gets from a registrar of example.com.

/// What a member of the cluster, which is asked for no password, gets for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// Nothing.
    Silence,
    /// A final answer.
    Refused(u16),
    /// It goes on to this address.
    Sent(&'static str),
    /// It goes on to where this leads.
    LookedUp(&'static str),
}

use Member::{LookedUp, Refused, Sent, Silence};

/// A meeting manager of the test.
const MANAGER: Member = Sent("10.0.0.1:5070");

/// One message.
pub struct Expected {
    /// File.
    pub file: &'static str,
    /// Status that a stranger gets; `None`: silence.
    pub stranger: Option<u16>,
    /// And a member.
    pub member: Member,
    /// Why.
    pub why: &'static str,
}

const fn row(
    file: &'static str,
    stranger: Option<u16>,
    member: Member,
    why: &'static str,
) -> Expected {
    Expected {
        file,
        stranger,
        member,
        why,
    }
}

/// Malformed: 400 for all.
const fn bad(file: &'static str, why: &'static str) -> Expected {
    row(file, Some(400), Refused(400), why)
}

/// In order, and for somebody: strangers are asked who they are.
const fn asked(file: &'static str, member: Member, why: &'static str) -> Expected {
    row(file, Some(407), member, why)
}

/// A registration in order: everybody is asked.
const fn register(file: &'static str, why: &'static str) -> Expected {
    row(file, Some(401), Refused(401), why)
}

/// Responses that nobody asked for, and what is no SIP.
const fn dropped(file: &'static str, why: &'static str) -> Expected {
    row(file, None, Silence, why)
}

/// In order of RFC 4475's sections, then RFC 5118's.
pub static TABLE: [Expected; 62] = [
    asked(
        "wsinv.dat",
        LookedUp("sip:services.example.com;lr;unknownwith=value;unknown-no-value"),
        "§3.1.1.1 white space and folding are legal",
    ),
    asked(
        "intmeth.dat",
        Refused(404),
        "§3.1.1.2 any token is a method; nobody of that name is here",
    ),
    asked(
        "esc01.dat",
        LookedUp("sip:sips%3Auser%40example.com@example.net"),
        "§3.1.1.3 escapes stay as they are",
    ),
    register("escnull.dat", "§3.1.1.4 escaped nulls in URIs"),
    asked(
        "esc02.dat",
        LookedUp("sip:registrar.example.com"),
        "§3.1.1.5 RE%47IST%45R is no REGISTER",
    ),
    asked("lwsdisp.dat", MANAGER, "§3.1.1.6 no white space before <"),
    asked("longreq.dat", MANAGER, "§3.1.1.7 long values, 34 of Via"),
    register(
        "dblreq.dat",
        "§3.1.1.8 what follows the body in a datagram is nothing",
    ),
    asked(
        "semiuri.dat",
        Refused(404),
        "§3.1.1.9 a semicolon belongs to the user part; nobody of that name is here",
    ),
    asked(
        "transports.dat",
        MANAGER,
        "§3.1.1.10 any transport may stand in a Via",
    ),
    asked(
        "mpart01.dat",
        Sent("127.0.0.1:5080"),
        "§3.1.1.11 a body of parts is only carried",
    ),
    dropped("unreason.dat", "§3.1.1.12 a response to nothing"),
    dropped("noreason.dat", "§3.1.1.13 a response to nothing"),
    bad(
        "badinv01.dat",
        "§3.1.2.1 separators without values, in the Via too",
    ),
    bad(
        "clerr.dat",
        "§3.1.2.2 Content-Length larger than the datagram",
    ),
    bad("ncl.dat", "§3.1.2.3 negative Content-Length"),
    bad("scalar02.dat", "§3.1.2.4 CSeq out of range"),
    dropped(
        "scalarlg.dat",
        "§3.1.2.5 a response with a CSeq out of range",
    ),
    bad("quotbal.dat", "§3.1.2.6 a quotation without end"),
    bad("ltgtruri.dat", "§3.1.2.7 Request-URI in <>"),
    bad("lwsruri.dat", "§3.1.2.8 white space in the Request-URI"),
    bad(
        "lwsstart.dat",
        "§3.1.2.9 several spaces in the Request-Line",
    ),
    bad("trws.dat", "§3.1.2.10 space at the end of the Request-Line"),
    bad("escruri.dat", "§3.1.2.11 headers in the Request-URI"),
    asked(
        "baddate.dat",
        MANAGER,
        "§3.1.2.12 a Date in another time zone is not for a proxy to read",
    ),
    bad(
        "regbadct.dat",
        "§3.1.2.13 a Contact with parameters needs <>",
    ),
    bad("badaspec.dat", "§3.1.2.14 space within an addr-spec"),
    bad("baddn.dat", "§3.1.2.15 a display name that is no token"),
    row(
        "badvers.dat",
        Some(505),
        Refused(505),
        "§3.1.2.16 SIP/7.0, in the Via too",
    ),
    bad("mismatch01.dat", "§3.1.2.17 CSeq names another method"),
    bad(
        "mismatch02.dat",
        "§3.1.2.18 CSeq names another method, the method is unknown",
    ),
    dropped(
        "bigcode.dat",
        "§3.1.2.19 a response with a status out of range",
    ),
    asked(
        "badbranch.dat",
        MANAGER,
        "§3.2.1 a branch of the magic cookie alone",
    ),
    bad("insuf.dat", "§3.3.1 no Call-ID, From, To"),
    row(
        "unkscm.dat",
        Some(416),
        Refused(416),
        "§3.3.2 an unknown scheme",
    ),
    row(
        "novelsc.dat",
        Some(416),
        Refused(416),
        "§3.3.3 a scheme of another application",
    ),
    register(
        "unksm2.dat",
        "§3.3.4 unknown schemes in From and To: who asks comes first",
    ),
    row(
        "bext01.dat",
        Some(420),
        Refused(420),
        "§3.3.5 Proxy-Require of what is not known",
    ),
    asked(
        "invut.dat",
        MANAGER,
        "§3.3.6 a body of an unknown type is only carried",
    ),
    register("regaut01.dat", "§3.3.7 credentials of an unknown scheme"),
    bad("multi01.dat", "§3.3.8 values of what may stand there once"),
    bad("mcl01.dat", "§3.3.9 Content-Length twice"),
    dropped("bcast.dat", "§3.3.10 a response whose Via is not ours"),
    row(
        "zeromf.dat",
        Some(483),
        Refused(483),
        "§3.3.11 Max-Forwards 0",
    ),
    register("cparam01.dat", "§3.3.12 an unknown parameter of a Contact"),
    register(
        "cparam02.dat",
        "§3.3.13 an unknown parameter of a Contact's URI",
    ),
    register("regescrt.dat", "§3.3.14 headers in a Contact's URI"),
    asked(
        "sdp01.dat",
        MANAGER,
        "§3.3.15 Accept without SDP is the callee's matter",
    ),
    asked("inv2543.dat", MANAGER, "§3.4.1 a request of RFC 2543"),
    dropped("test.dat", "no SIP version in the Request-Line"),
    row(
        "ipv6-good",
        Some(404),
        Sent("[2001:db8::10]:5060"),
        "§4.1 an IPv6 reference; not our domain",
    ),
    bad("ipv6-bad", "§4.2 an IPv6 address without brackets"),
    row(
        "port-ambiguous",
        Some(404),
        Sent("[2001:db8::10:5070]:5060"),
        "§4.3 the port is within the brackets: it is none",
    ),
    row(
        "port-unambiguous",
        Some(404),
        Sent("[2001:db8::10]:5070"),
        "§4.4 the port is behind the brackets",
    ),
    asked(
        "via-received-param-no-delim",
        Sent("[2001:db8::10]:5060"),
        "§4.5 received without brackets",
    ),
    asked(
        "via-received-param-with-delim",
        Sent("[2001:db8::10]:5060"),
        "§4.5 received in brackets",
    ),
    asked(
        "ipv6-in-sdp",
        Sent("[2001:db8::10]:5060"),
        "§4.6 no brackets in SDP",
    ),
    asked(
        "mult-ip-in-header",
        LookedUp("sip:user@host.example.net"),
        "§4.7 both families in one message",
    ),
    asked(
        "mult-ip-in-sdp",
        Sent("[2001:db8::10]:5060"),
        "§4.8 both families in one SDP",
    ),
    asked("ipv4-mapped-ipv6", MANAGER, "§4.9 an IPv4-mapped address"),
    asked(
        "ipv6-bug-abnf-3-colons",
        Sent("[2001:db8::c000:201]:5060"),
        "§4.10 three colons, as RFC 3261's grammar has it",
    ),
    asked(
        "ipv6-correct-abnf-2-colons",
        Sent("[2001:db8::c000:201]:5060"),
        "§4.10 two colons",
    ),
];
