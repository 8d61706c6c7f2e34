//! How a node finds its cluster, founds it, or comes back to it.
//!
//! Invariants: a cluster is founded only by the node with the lowest id of those that were asked, only if every
//! seed has answered and none of them holds anything; a node belongs to one cluster; nothing here is changed
//! by an answer that does not fit. All of it may be interrupted anywhere and is done again from what is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use varve_types::ClusterId;

use crate::error::StartError;
use crate::message::{Hello, Refusal, Request, Response};
use crate::network::{Speaker, Whom};
use crate::node::{Inner, Phase};
use crate::types::{Member, RaftId, raft_id};

/// Shortest and longest pause between two rounds of asking.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// How long a leader that has let this node in may take to reach it before it is asked again.
const JOINED_PAUSE: Duration = Duration::from_millis(500);
/// How long a start waits for those whom it asks who they are.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// How often the same notice is logged again.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What to do after a round of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// Ask these addresses to be let in.
    Join(Vec<String>),
    /// Found a cluster of these.
    Found(BTreeMap<RaftId, Member>),
    /// Ask again later.
    Wait,
}

/// Finds the cluster, then sees to it that the leader knows this node's address.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut notices = Notices::default();
    let mut pause = PAUSES.0;
    let mut quiet_since = Instant::now();
    loop {
        let alone_for = inner.lease() * 5;
        quiet_since = quiet_since.max(inner.last_led().unwrap_or(quiet_since));
        let known = inner.own_entry();
        let fits = known.as_ref() == Some(&inner.config.member());
        let settled = fits && (quiet_since.elapsed() < alone_for || inner.is_only_voter());
        if settled {
            inner.set_phase(Phase::Member, Vec::new());
            pause = PAUSES.0;
            if !inner.pause(Duration::from_millis(500)).await {
                return;
            }
            continue;
        }
        let found = inner.one_round(&mut notices).await;
        if found == Some(Phase::Removed) {
            return;
        }
        pause = match found {
            Some(Phase::Joining) => JOINED_PAUSE,
            Some(_) => PAUSES.0,
            None => (pause * 2).min(PAUSES.1),
        };
        if !inner.pause(pause).await {
            return;
        }
    }
}

/// Tells people each thing once, and again after a while.
#[derive(Default)]
struct Notices {
    told: BTreeMap<String, Instant>,
}

impl Notices {
    fn tell(&mut self, notices: &[String]) {
        self.told.retain(|_, at| at.elapsed() < LOG_AGAIN_AFTER);
        for notice in notices {
            if !self.told.contains_key(notice) {
                tracing::warn!("{notice}");
                self.told.insert(notice.clone(), Instant::now());
            }
        }
    }
}

impl Inner {
    /// This node, as the newest membership here has it.
    fn own_entry(&self) -> Option<Member> {
        let metrics = self.metrics();
        metrics
            .membership_config
            .membership()
            .get_node(&self.id)
            .cloned()
    }

    /// Who votes, as the newest membership here has it.
    fn voters(&self) -> Vec<Member> {
        let metrics = self.metrics();
        let members = metrics.membership_config.membership();
        let voters = members.voter_ids().filter_map(|id| members.get_node(&id));
        voters.cloned().collect()
    }

    /// When a leader was heard last, or now, if this node leads. Not whom openraft calls the leader: to a member
    /// that was taken out while it was away, and to which nobody talks, that is the one before, for ever.
    fn last_led(&self) -> Option<Instant> {
        if self.metrics().current_leader == Some(self.id) {
            return Some(Instant::now());
        }
        self.heard_leader.lock().map(|(_, at)| at)
    }

    fn is_only_voter(&self) -> bool {
        self.metrics()
            .membership_config
            .membership()
            .voter_ids()
            .eq([self.id])
    }

    fn set_phase(&self, phase: Phase, notices: Vec<String>) {
        let mut progress = self.progress.lock();
        progress.phase = phase;
        progress.notices = notices;
    }

    /// Addresses of others to ask.
    fn others(&self) -> BTreeSet<String> {
        let metrics = self.metrics();
        let members = metrics.membership_config.membership();
        let members = members.nodes().map(|(_, member)| member.address.clone());
        let mut others: BTreeSet<String> =
            members.chain(self.config.seeds.iter().cloned()).collect();
        others.remove(&self.config.address);
        others
    }

    async fn one_round(&self, notices: &mut Notices) -> Option<Phase> {
        let within = self.config.call_timeout;
        let asked = self.others().into_iter().map(|address| async move {
            let answer = self.speaker.hello(&address, within).await;
            (address, answer)
        });
        let (answers, me) = (join_all(asked).await, self.speaker.transport.process());
        for (hello, process) in answers
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().ok())
        {
            if process.is_some_and(|process| process == me) {
                continue;
            }
            // A member that has moved while nobody led can be told from its answer alone.
            self.speaker
                .note_address(raft_id(hello.member.directory), &hello.member.address);
        }
        let (decision, mut words) = decide(
            (&self.config.member(), me),
            self.speaker.cluster(),
            self.own_entry().is_some(),
            &self.config.seeds,
            self.config.bootstrap_expect,
            &answers,
        );
        if self.own_entry().is_some() {
            words.extend(lost_votes(&self.voters(), &answers));
        }
        let mut phase = Phase::Asking;
        let mut done = None;
        match decision {
            Decision::Wait => {}
            Decision::Join(addresses) => {
                phase = Phase::Joining;
                match self.ask_to_join(addresses).await {
                    Ok(()) => {
                        done = Some(phase);
                        words.push(format!(
                            "the metadata leader knows this node but has not reached it at {} yet",
                            self.config.address
                        ));
                    }
                    Err((Refusal::Removed, why)) => {
                        phase = Phase::Removed;
                        done = Some(phase);
                        words.push(format!(
                            "{why}; stop it, or restart it to let it join as a new node"
                        ));
                    }
                    Err((_, why)) => words.push(why),
                }
            }
            Decision::Found(members) => match self.found(members).await {
                Ok(()) => done = Some(Phase::Member),
                Err(why) => words.push(why),
            },
        }
        if done != Some(Phase::Joining) {
            notices.tell(&words);
        }
        self.set_phase(phase, words);
        done
    }

    async fn ask_to_join(&self, addresses: Vec<String>) -> Result<(), (Refusal, String)> {
        let request = Request::Join(self.config.member());
        let within = self.config.propose_timeout;
        let mut last = (
            Refusal::NotNow,
            "the cluster has no metadata leader at present".to_owned(),
        );
        for address in addresses {
            match self.speaker.ask(Whom::at(&address), &request, within).await {
                Ok(Response::Changed) => return Ok(()),
                Ok(Response::NotLeader(_)) => {}
                Ok(Response::Refused(refusal, why)) => {
                    last = (
                        refusal,
                        format!("the node at {address} did not admit this node: {why}"),
                    );
                    if matches!(refusal, Refusal::NodeIdInUse | Refusal::Removed) {
                        break;
                    }
                }
                Ok(_) => {
                    last.1 =
                        format!("internal error: the node at {address} answered another question")
                }
                Err(error) => last.1 = format!("the node at {address} {error}"),
            }
        }
        Err(last)
    }

    async fn found(&self, members: BTreeMap<RaftId, Member>) -> Result<(), String> {
        let cluster = self.speaker.cluster();
        let cluster = cluster.unwrap_or_else(|| ClusterId(uuid::Uuid::new_v4().as_u128()));
        self.adopt(cluster).await?;
        let nodes: Vec<i32> = members.values().map(|m| m.node.0).collect();
        tracing::info!(%cluster, ?nodes, "this node founds a cluster");
        let founded = self.raft.initialize(members).await;
        founded.map_err(|e| format!("the cluster was not founded: {e}"))
    }
}

/// Who answered, and the random number of its process.
type Answer = Result<(Hello, Option<u128>), String>;

/// What to say of a process that has the directory of this one.
fn copy_in_use(me: &Member, address: &str) -> String {
    format!(
        "the data directory {} of node {} is in use by the process at {address}: one of the two is \
         a copy; stop the copy, and give it an id and an empty directory of its own",
        me.directory, me.node
    )
}

/// Looks who is there before a node that has been a member takes part in anything. A process on the same
/// directory would be a second member of one identity, which could vote twice; and if all who answer are of
/// another cluster, the node was given the wrong seeds or the wrong directory. Who does not answer at once is
/// not waited for.
pub(crate) async fn check_surroundings(
    speaker: &Speaker,
    me: &Member,
    addresses: &BTreeSet<String>,
) -> Result<(), StartError> {
    let asked = addresses.iter().map(|address| async move {
        let answer = speaker.hello(address, START_PATIENCE).await.ok();
        answer.map(|(hello, process)| (address, hello, process))
    });
    let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    for (address, hello, process) in &answers {
        let other = process.is_some_and(|process| process != speaker.transport.process());
        // Who is of another cluster holds no copy of this one's directory, whatever it is called there.
        let ours = match (speaker.cluster(), hello.cluster) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        if ours && hello.member.directory == me.directory && other {
            return Err(StartError::Refused(copy_in_use(me, address)));
        }
    }
    let mut others = Vec::new();
    for (address, hello, _) in &answers {
        if let (Some(ours), Some(theirs)) = (speaker.cluster(), hello.cluster)
            && hello.initialised
        {
            if ours == theirs {
                return Ok(());
            }
            others.push(format!("the node at {address} to cluster {theirs}"));
        }
    }
    match (others.is_empty(), speaker.cluster()) {
        (false, Some(ours)) => Err(StartError::Refused(format!(
            "the data directory of node {} belongs to cluster {ours}, but {}: either the seeds or \
             the directory belong to another cluster",
            me.node,
            others.join(", ")
        ))),
        _ => Ok(()),
    }
}

/// What to say when most who vote have lost what they voted on; a cluster cannot go on from there by itself.
fn lost_votes(voters: &[Member], answers: &[(String, Answer)]) -> Option<String> {
    let answered = |voter: &&Member| {
        answers.iter().any(|(_, answer)| {
            answer.as_ref().is_ok_and(|(hello, _)| {
                hello.member.node == voter.node && hello.member.directory != voter.directory
            })
        })
    };
    let lost: Vec<String> = voters
        .iter()
        .filter(answered)
        .map(|voter| voter.node.to_string())
        .collect();
    let left = voters.len() - lost.len();
    (left * 2 <= voters.len() && !lost.is_empty()).then(|| {
        format!(
            "{} of the {} nodes that vote on the metadata came back with other data directories \
             (node {}); the other {left} are not a majority, so they cannot decide anything; give \
             those nodes their old directories back",
            lost.len(),
            voters.len(),
            lost.join(", node ")
        )
    })
}

/// What the answers of a round mean. Pure.
fn decide(
    (me, process): (&Member, u128),
    cluster: Option<ClusterId>,
    member: bool,
    seeds: &[String],
    expect: usize,
    answers: &[(String, Answer)],
) -> (Decision, Vec<String>) {
    let mut words = Vec::new();
    let mut found: Option<ClusterId> = cluster;
    let (mut leaders, mut others) = (Vec::new(), Vec::new());
    let mut empty: BTreeMap<RaftId, Member> = BTreeMap::from([(raft_id(me.directory), me.clone())]);
    let (mut silent, mut wrong, mut in_seeds) = (Vec::new(), false, seeds.contains(&me.address));
    for (address, answer) in answers {
        let (hello, theirs) = match answer {
            Ok((hello, theirs)) => (hello, theirs),
            Err(why) => {
                silent.push(format!("the node at {address} {why}"));
                continue;
            }
        };
        if hello.member.directory == me.directory {
            if theirs.is_none_or(|theirs| theirs == process) {
                // This node by another name.
                in_seeds |= seeds.contains(address);
            } else {
                wrong = true;
                words.push(copy_in_use(me, address));
            }
            continue;
        }
        if hello.member.node == me.node {
            wrong = true;
            words.push(format!(
                "the node at {address} has the same node id {} as this one, but another data \
                 directory; give one of them another id",
                me.node
            ));
            continue;
        }
        match (found, hello.cluster) {
            (Some(ours), Some(theirs)) if ours != theirs && hello.initialised => {
                wrong = true;
                words.push(format!(
                    "the node at {address} belongs to cluster {theirs}, not to {ours}"
                ));
                continue;
            }
            (None, Some(theirs)) if hello.initialised => found = Some(theirs),
            _ => {}
        }
        if hello.initialised {
            leaders.extend(hello.leader.clone().map(|(_, address)| address));
            others.push(address.clone());
        } else {
            empty.insert(raft_id(hello.member.directory), hello.member.clone());
        }
    }
    if !others.is_empty() {
        if wrong && cluster.is_none() {
            return (Decision::Wait, words);
        }
        leaders.extend(others);
        let mut once = BTreeSet::new();
        leaders.retain(|address| once.insert(address.clone()));
        return (Decision::Join(leaders), words);
    }
    words.extend(silent.iter().cloned());
    if member || wrong || expect == 0 || !silent.is_empty() || !(in_seeds || seeds.is_empty()) {
        if !member && expect > 0 && silent.is_empty() && !in_seeds && !seeds.is_empty() {
            words.push(format!(
                "this node, {}, is not among its seeds, so it does not found a cluster",
                me.address
            ));
        }
        return (Decision::Wait, words);
    }
    let ids: BTreeSet<_> = empty.values().map(|m| m.node).collect();
    if ids.len() < empty.len() {
        words.push("two of the seeds have the same node id; give one of them another".to_owned());
        return (Decision::Wait, words);
    }
    if empty.len() < expect {
        words.push(format!(
            "{} of the {expect} nodes that found the cluster have answered",
            empty.len()
        ));
        return (Decision::Wait, words);
    }
    if ids.first() != Some(&me.node) {
        return (Decision::Wait, words);
    }
    let mut members: Vec<(RaftId, Member)> = empty.into_iter().collect();
    members.sort_by_key(|(_, member)| member.node);
    members.truncate(expect);
    (Decision::Found(members.into_iter().collect()), words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_types::{DirectoryId, NodeId};

    fn node(n: i32) -> Member {
        Member {
            node: NodeId(n),
            directory: DirectoryId(1000 + n as u128),
            address: format!("n{n}:1"),
            rack: String::new(),
        }
    }

    /// The process of this node.
    const ME: u128 = 7;

    fn hello(member: Member, cluster: Option<u128>) -> Answer {
        let hello = Hello {
            cluster: cluster.map(ClusterId),
            member,
            initialised: cluster.is_some(),
            leader: None,
        };
        Ok((hello, Some(ME + 1)))
    }

    fn seeds(n: i32) -> Vec<String> {
        (1..=n).map(|n| format!("n{n}:1")).collect()
    }

    fn of(me: i32, answers: Vec<Answer>) -> (Decision, Vec<String>) {
        let others = (1..=3).filter(|n| *n != me).map(|n| format!("n{n}:1"));
        let answers: Vec<_> = others.zip(answers).collect();
        decide((&node(me), ME), None, false, &seeds(3), 3, &answers)
    }

    #[test]
    fn a_majority_of_lost_votes_is_named() {
        let voters = [node(1), node(2), node(3)];
        let wiped = |n| {
            let mut member = node(n);
            member.directory = DirectoryId(2000 + n as u128);
            (format!("n{n}:1"), hello(member, None))
        };
        let well = |n| (format!("n{n}:1"), hello(node(n), Some(7)));
        let silent = ("n2:1".to_owned(), Err("is away".to_owned()));
        assert_eq!(lost_votes(&voters, &[well(2), well(3)]), None);
        assert_eq!(lost_votes(&voters, &[well(2), wiped(3)]), None);
        assert_eq!(lost_votes(&voters, &[silent, wiped(3)]), None);
        let words = lost_votes(&voters, &[wiped(2), wiped(3)]).unwrap();
        assert!(
            words.contains("2 of the 3") && words.contains("node 2, node 3"),
            "{words}"
        );
    }

    #[test]
    fn a_seed_that_is_this_node_by_another_name_counts_as_this_node() {
        let mut me = node(1);
        me.address = "elsewhere:1".to_owned();
        let itself = |process| {
            let answer = hello(me.clone(), None).map(|(hello, _)| (hello, Some(process)));
            ("n1:1".to_owned(), answer)
        };
        let others = [2, 3].map(|n| (format!("n{n}:1"), hello(node(n), None)));
        let decide = |first| {
            let answers: Vec<_> = std::iter::once(first).chain(others.clone()).collect();
            decide((&me, ME), None, false, &seeds(3), 3, &answers)
        };
        let (decision, words) = decide(itself(ME));
        assert!(matches!(decision, Decision::Found(_)), "{words:?}");
        // Another process on the same directory is a copy.
        let (decision, words) = decide(itself(ME + 1));
        assert_eq!(decision, Decision::Wait);
        assert!(words[0].contains("one of the two is a copy"), "{words:?}");
    }

    #[test]
    fn the_lowest_of_all_empty_nodes_founds() {
        let (decision, _) = of(1, vec![hello(node(2), None), hello(node(3), None)]);
        let Decision::Found(members) = decision else {
            panic!("{decision:?}")
        };
        assert_eq!(members.len(), 3);
        let (decision, _) = of(2, vec![hello(node(1), None), hello(node(3), None)]);
        assert_eq!(decision, Decision::Wait);
    }

    #[test]
    fn nobody_founds_while_a_seed_is_silent() {
        let (decision, words) = of(1, vec![hello(node(2), None), Err("is away".to_owned())]);
        assert_eq!(decision, Decision::Wait);
        assert!(words[0].contains("n3:1"), "{words:?}");
    }

    #[test]
    fn whoever_finds_a_cluster_joins_it() {
        let (decision, _) = of(1, vec![hello(node(2), Some(7)), Err("is away".to_owned())]);
        assert_eq!(decision, Decision::Join(vec!["n2:1".to_owned()]));
    }

    #[test]
    fn two_clusters_or_two_nodes_of_one_id_are_refused() {
        let (decision, words) = of(1, vec![hello(node(2), Some(7)), hello(node(3), Some(8))]);
        assert_eq!((decision, words.len()), (Decision::Wait, 1));
        let mut twin = node(3);
        twin.node = NodeId(2);
        let (decision, words) = of(1, vec![hello(node(2), None), hello(twin.clone(), None)]);
        assert_eq!((decision, words.len()), (Decision::Wait, 1));
        twin.node = NodeId(1);
        let (decision, words) = of(1, vec![hello(node(2), None), hello(twin, None)]);
        assert_eq!((decision, words.len()), (Decision::Wait, 1));
    }
}
