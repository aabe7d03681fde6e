//! What is done to the cluster.

/// Which process is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Registrar,
    /// A manager that has no meeting.
    IdleManager,
    /// The manager with most meetings.
    Owner,
    /// The switch with most legs.
    Switch,
    EtcdLeader,
    EtcdFollower,
}

/// Between whom a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// The owner, and all of etcd.
    ManagerStore,
    /// The owner, and all switches.
    ManagerSwitch,
    /// A registrar, and the owner.
    RegistrarManager,
}

/// How it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing goes either way.
    Both,
    /// What the first sends is lost.
    OneWay,
    /// Cut and healed every half second.
    Flapping,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None: what the machine itself does to the figures.
    Nothing,
    Kill(Whom),
    /// The owner, while somebody joins each of its meetings.
    KillDuringInvite,
    Stop(Whom),
    Partition(Between, Cut),
    StoreFull,
    ClockJump,
    RollingRestart,
    ColdStart,
}

/// A fault by its name.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub fault: Fault,
    pub about: &'static str,
}

impl Fault {
    /// Media has no reason to suffer.
    pub fn is_control_only(self) -> bool {
        !matches!(
            self,
            Self::Kill(Whom::Switch)
                | Self::Stop(Whom::Switch)
                | Self::RollingRestart
                | Self::ColdStart
        )
    }

    /// Meetings get another owner, who is waited for.
    pub fn is_takeover(self) -> bool {
        matches!(
            self,
            Self::Kill(Whom::Owner)
                | Self::Stop(Whom::Owner)
                | Self::KillDuringInvite
                | Self::Partition(Between::ManagerStore, Cut::Both)
        )
    }
}

const fn scenario(name: &'static str, fault: Fault, about: &'static str) -> Scenario {
    Scenario { name, fault, about }
}

/// All there are.
pub const ALL: [Scenario; 24] = {
    use Between::{ManagerStore, ManagerSwitch, RegistrarManager};
    use Cut::{Both, Flapping, OneWay};
    use Fault::{Kill, Partition, Stop};
    [
        scenario(
            "nothing",
            Fault::Nothing,
            "no fault: what the machine itself does",
        ),
        scenario(
            "kill-registrar",
            Kill(Whom::Registrar),
            "kill -9 of a registrar",
        ),
        scenario(
            "kill-idle-manager",
            Kill(Whom::IdleManager),
            "kill -9 of a manager without meetings",
        ),
        scenario(
            "kill-owner",
            Kill(Whom::Owner),
            "kill -9 of a meeting's owner",
        ),
        scenario(
            "kill-owner-in-invite",
            Fault::KillDuringInvite,
            "kill -9 of an owner while people join",
        ),
        scenario("kill-switch", Kill(Whom::Switch), "kill -9 of a switch"),
        scenario(
            "kill-etcd-leader",
            Kill(Whom::EtcdLeader),
            "kill -9 of etcd's leader",
        ),
        scenario(
            "kill-etcd-follower",
            Kill(Whom::EtcdFollower),
            "kill -9 of an etcd follower",
        ),
        scenario(
            "stop-owner",
            Stop(Whom::Owner),
            "SIGSTOP of an owner, later SIGCONT",
        ),
        scenario(
            "stop-registrar",
            Stop(Whom::Registrar),
            "SIGSTOP of a registrar, later SIGCONT",
        ),
        scenario(
            "stop-switch",
            Stop(Whom::Switch),
            "SIGSTOP of a switch, later SIGCONT",
        ),
        scenario(
            "cut-manager-store",
            Partition(ManagerStore, Both),
            "an owner is cut from etcd",
        ),
        scenario(
            "cut-manager-store-one-way",
            Partition(ManagerStore, OneWay),
            "etcd hears nothing from an owner",
        ),
        scenario(
            "cut-manager-store-flapping",
            Partition(ManagerStore, Flapping),
            "an owner is cut from etcd now and then",
        ),
        scenario(
            "cut-manager-switch",
            Partition(ManagerSwitch, Both),
            "an owner is cut from all switches",
        ),
        scenario(
            "cut-manager-switch-one-way",
            Partition(ManagerSwitch, OneWay),
            "switches hear nothing from an owner",
        ),
        scenario(
            "cut-manager-switch-flapping",
            Partition(ManagerSwitch, Flapping),
            "an owner is cut from all switches now and then",
        ),
        scenario(
            "cut-registrar-manager",
            Partition(RegistrarManager, Both),
            "a registrar is cut from an owner",
        ),
        scenario(
            "cut-registrar-manager-one-way",
            Partition(RegistrarManager, OneWay),
            "an owner hears nothing from a registrar",
        ),
        scenario(
            "cut-registrar-manager-flapping",
            Partition(RegistrarManager, Flapping),
            "a registrar is cut from an owner now and then",
        ),
        scenario(
            "store-full",
            Fault::StoreFull,
            "etcd has no space: it takes no writes",
        ),
        scenario(
            "clock-jump",
            Fault::ClockJump,
            "the owner's clock jumps by an hour",
        ),
        scenario(
            "rolling-restart",
            Fault::RollingRestart,
            "everything is restarted, one after another",
        ),
        scenario(
            "cold-start",
            Fault::ColdStart,
            "everything is killed and started",
        ),
    ]
};
