//! Nodes reach each other exactly as they are meant to.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use varve_tests::chaos::{Ground, say};
use varve_tests::wait;

/// Takes connections and closes them, for ever.
const LISTEN: &str = r#"use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => $ARGV[0], Listen => 9)
    or die $!; while (1) { my $c = $l->accept; close $c if $c; }"#;
const DIAL: &str = r#"use IO::Socket::INET; exit(IO::Socket::INET->new(PeerAddr => $ARGV[0], Timeout => 2) ? 0 : 1)"#;

struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listen(ground: &Ground, node: usize) -> Listener {
    let mut command = ground.command(node, Path::new("perl"));
    command
        .args(["-e", LISTEN, &ground.peer(node)])
        .stdin(Stdio::null());
    Listener(command.spawn().unwrap())
}

fn reaches(ground: &Ground, from: usize, to: usize) -> bool {
    let mut command = ground.command(from, Path::new("perl"));
    command.args(["-e", DIAL, &ground.peer(to)]);
    command.status().unwrap().success()
}

#[test]
fn partitions_part_whom_they_name_and_nobody_else() {
    let ground = Ground::new(3);
    if !ground.has_namespaces() {
        say("SKIPPED partitions: there are no network namespaces");
        return;
    }
    let _listeners = [0, 1, 2].map(|node| listen(&ground, node));
    let all = || [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)];
    let whole = || {
        for (from, to) in all() {
            wait::until("nodes to reach each other", Duration::from_secs(30), || {
                reaches(&ground, from, to).then_some(())
            });
        }
    };
    whole();
    ground.cut(0, 1).unwrap();
    assert!(!reaches(&ground, 0, 1));
    assert!(reaches(&ground, 2, 1) && reaches(&ground, 1, 2) && reaches(&ground, 0, 2));
    ground.heal().unwrap();
    whole();
    ground.isolate(2).unwrap();
    assert!(!reaches(&ground, 0, 2) && !reaches(&ground, 2, 1));
    assert!(reaches(&ground, 0, 1));
    ground.heal().unwrap();
    whole();
    ground.narrow(0, 256).unwrap();
    assert!(reaches(&ground, 0, 1));
    ground.heal().unwrap();
    whole();
}
