//! Runs the pods of a StatefulSet as processes: the container's arguments, environment and mounts are the manifest's.
//!
//! As root each pod has a mount and a host name of its own: its root is the image, read-only; its user is the image's;
//! the names in DNS are lines of a hosts file. Otherwise, said aloud, names and paths are replaced by loopback
//! addresses and folders. Either way the pods share the network of this machine, so each listens on a loopback address
//! of its own, and not on all.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use varve_tests::node::http_get_at;
use varve_tests::wait;

use crate::image::{self, UID};
use crate::manifest::{Manifest, Source};
use crate::{PATIENCE, clean, loudly};

/// Makes the pod's mounts in its own namespace, then becomes the program. The arguments are what to run.
const ENTER: &str = r#"
set -e
hostname "$POD"
mount --bind "$IMAGE" "$IMAGE"
for at in proc dev; do mount --rbind "/$at" "$IMAGE/$at"; done
mount --bind "$HOSTS" "$IMAGE/etc/hosts"
echo "$MOUNTS" | while IFS='|' read -r what where how; do
  [ -n "$what" ] || continue
  mount --bind "$what" "$IMAGE$where"
  [ "$how" != ro ] || mount -o remount,bind,ro "$IMAGE$where"
done
mount -o remount,bind,ro "$IMAGE"
unset POD HOSTS MOUNTS
exec chroot --userspec=65532:65532 --groups= "$IMAGE" /usr/bin/varve "$@"
"#;

/// The pods.
pub struct Set {
    pub manifest: Manifest,
    work: PathBuf,
    isolated: bool,
    network: String,
    pods: Vec<Option<Child>>,
    /// Volumes that each pod has had: replacing one counts up.
    volumes: Vec<usize>,
}

fn can_isolate() -> bool {
    let forbidden = std::env::var_os("VARVE_TEST_NO_NAMESPACES").is_some();
    let mut probe = Command::new("unshare");
    probe.args([
        "--mount",
        "--uts",
        "--propagation",
        "private",
        "sh",
        "-c",
        "hostname x",
    ]);
    !forbidden && probe.output().is_ok_and(|o| o.status.success())
}

impl Set {
    /// Pods in `work`, at most `most` and none of them running; `secret` makes the files of a secret in a folder.
    pub fn new(
        manifest: Manifest,
        most: usize,
        work: &Path,
        secret: impl Fn(&Self, &str, &Path),
    ) -> Self {
        let isolated = can_isolate();
        if !isolated {
            loudly(
                "NOT ISOLATED: without root and namespaces, the pods' names and paths are replaced by loopback \
                 addresses and folders",
            );
        }
        static SETS: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id() * 2 + SETS.fetch_add(1, Ordering::SeqCst) % 2;
        let set = Self {
            manifest,
            work: work.to_owned(),
            isolated,
            // Loopback addresses of this run alone.
            network: format!("127.{}.{}", 64 + id / 250 % 128, 1 + id % 250),
            pods: (0..most).map(|_| None).collect(),
            volumes: vec![0; most],
        };
        std::fs::set_permissions(work, std::fs::Permissions::from_mode(0o755)).unwrap();
        image::assemble(&work.join("image"));
        let names: Vec<String> = (0..most)
            .map(|n| format!("{} {}\n", set.ip(n), set.manifest.host(n)))
            .collect();
        std::fs::write(work.join("hosts"), names.concat()).unwrap();
        for (path, source) in set.manifest.mounts() {
            let folder = set.folder(0, &path, &source);
            match &source {
                Source::Files(files) => {
                    std::fs::create_dir_all(&folder).unwrap();
                    for (name, text) in files {
                        std::fs::write(folder.join(name), set.local(0, text)).unwrap();
                    }
                }
                Source::Secret(name) => {
                    std::fs::create_dir_all(&folder).unwrap();
                    secret(&set, name, &folder);
                    for file in std::fs::read_dir(&folder).unwrap() {
                        let file = file.unwrap().path();
                        let _ = chown(&file, None, Some(UID));
                        let mode = std::fs::Permissions::from_mode(0o440);
                        std::fs::set_permissions(&file, mode).unwrap();
                    }
                }
                Source::Claim => {}
            }
        }
        for pod in 0..most {
            set.make_volume(pod);
        }
        set
    }

    /// Pods that there are names, addresses and volumes for.
    pub fn most(&self) -> usize {
        self.pods.len()
    }

    /// Address of a pod, as the network would give it one.
    pub fn ip(&self, pod: usize) -> String {
        format!("{}.{}", self.network, pod + 1)
    }

    fn folder(&self, pod: usize, path: &str, source: &Source) -> PathBuf {
        match source {
            Source::Claim => self
                .work
                .join(format!("volume-{pod}-{}", self.volumes[pod])),
            _ => self.work.join(path.replace('/', "_")),
        }
    }

    /// A new filesystem as the kubelet hands it over: root's, writable by the pod's group, not quite empty.
    fn make_volume(&self, pod: usize) {
        let volume = self.folder(pod, "", &Source::Claim);
        std::fs::create_dir_all(volume.join("lost+found")).unwrap();
        let _ = chown(&volume, None, Some(UID));
        std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o2775)).unwrap();
    }

    /// The pod's volume is lost; the next one is empty.
    pub fn lose_volume(&mut self, pod: usize) {
        let old = self.folder(pod, "", &Source::Claim);
        std::fs::remove_dir_all(old).unwrap();
        self.volumes[pod] += 1;
        self.make_volume(pod);
    }

    /// Without isolation, names and paths of the container become those of this machine.
    fn local(&self, pod: usize, text: &str) -> String {
        if self.isolated {
            return text.to_owned();
        }
        let mut text = text.to_owned();
        for (path, source) in self.manifest.mounts() {
            let folder = self.folder(pod, &path, &source);
            // The data's path is the same in the one configuration of all; each pod gets its own by a flag.
            if !matches!(source, Source::Claim) {
                text = text.replace(&path, folder.to_str().unwrap());
            }
        }
        for other in 0..self.most() {
            text = text.replace(&self.manifest.host(other), &self.ip(other));
        }
        text
    }

    /// `varve` with these arguments in the pod's surroundings.
    fn enter(&self, pod: usize, name: &str, args: &[String], env: &[(String, String)]) -> Command {
        let local = |t: &String| self.local(pod, t);
        if !self.isolated {
            let mut command = clean(varve_tests::varve());
            command.args(args.iter().map(local));
            command.envs(env.iter().map(|(k, v)| (k, local(v))));
            return command;
        }
        let mounts: Vec<String> = self
            .manifest
            .mounts()
            .iter()
            .map(|(path, source)| {
                let how = if matches!(source, Source::Claim) {
                    "rw"
                } else {
                    "ro"
                };
                format!(
                    "{}|{path}|{how}\n",
                    self.folder(pod, path, source).display()
                )
            })
            .collect();
        let mut command = clean("unshare");
        command
            .args([
                "--mount",
                "--uts",
                "--propagation",
                "private",
                "sh",
                "-c",
                ENTER,
                "sh",
            ])
            .args(args)
            .envs(env.iter().map(|(k, v)| (k, v)))
            .env("POD", name)
            .env("IMAGE", self.work.join("image"))
            .env("HOSTS", self.work.join("hosts"))
            .env("MOUNTS", mounts.concat());
        command
    }

    /// Starts the container of a pod and does not wait for it.
    pub fn start(&mut self, pod: usize) {
        assert!(self.pods[pod].is_none(), "the pod runs");
        let mut env = self.manifest.env(pod);
        // What is of this machine and not of the manifest: one network for all pods, and a disk in use.
        for (key, port) in [
            ("VARVE_LISTENERS__CLIENT__ADDRESS", "client"),
            ("VARVE_LISTENERS__PEER__ADDRESS", "peer"),
            ("VARVE_HTTP__ADDRESS", "http"),
        ] {
            let address = format!("{}:{}", self.ip(pod), self.manifest.port(port));
            env.push((key.to_owned(), address));
        }
        env.push((
            "VARVE_STORAGE__MIN_FREE_BYTES".to_owned(),
            "16MiB".to_owned(),
        ));
        let mut args = self.manifest.args();
        if !self.isolated {
            let data = self.folder(pod, "", &Source::Claim).join("data");
            let own = [
                "--node-id",
                &pod.to_string(),
                "--data-dir",
                data.to_str().unwrap(),
            ];
            args.extend(own.map(str::to_owned));
        }
        let name = self.manifest.pod(pod);
        let mut command = self.enter(pod, &name, &args, &env);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log(pod))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.pods[pod] = Some(command.spawn().unwrap());
    }

    fn log(&self, pod: usize) -> PathBuf {
        self.work.join(format!("log-{pod}"))
    }

    /// The end of a pod's log, for a message about a failure.
    pub fn tail(&self, pod: usize) -> String {
        let text = std::fs::read_to_string(self.log(pod)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Whether a probe of a pod succeeds.
    pub fn probe(&self, pod: usize, probe: &str) -> bool {
        let address = format!("{}:{}", self.ip(pod), self.manifest.port("http"));
        let address = address.parse().unwrap();
        let answer = http_get_at(address, self.manifest.probe(probe));
        answer.is_some_and(|(status, _)| status == 200)
    }

    /// Waits until a pod is ready.
    pub fn ready(&mut self, pod: usize) {
        let name = self.manifest.pod(pod);
        wait::until(&format!("{name} to be ready"), PATIENCE, || {
            let ended = self.pods[pod].as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{name} ended: {ended:?}\n{}",
                self.tail(pod)
            );
            self.probe(pod, "readinessProbe").then_some(())
        });
    }

    /// Waits until a rollout may go on: the pod has been ready for `minReadySeconds`.
    pub fn available(&mut self, pod: usize) {
        self.ready(pod);
        std::thread::sleep(self.manifest.min_ready());
        assert!(self.probe(pod, "readinessProbe"), "{}", self.tail(pod));
    }

    /// The pod is gone from one moment to the next.
    pub fn kill(&mut self, pod: usize) {
        let mut child = self.pods[pod].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The pod is deleted: SIGTERM, and it must end well by itself in the time that the manifest gives it.
    pub fn delete(&mut self, pod: usize) -> Duration {
        let mut child = self.pods[pod].take().unwrap();
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let began = std::time::Instant::now();
        let ended = wait::until("the pod to end", self.manifest.grace(), || {
            child.try_wait().unwrap()
        });
        assert!(ended.success(), "{ended}\n{}", self.tail(pod));
        began.elapsed()
    }

    /// A client in a pod of its own, with the mounts of pod 0 but not its volume in use.
    pub fn client(&self, args: &[&str]) -> Command {
        let host = |n| format!("{}:{}", self.manifest.host(n), self.manifest.port("client"));
        let brokers: Vec<String> = (0..self.manifest.replicas()).map(host).collect();
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let mut env = vec![
            ("VARVE_BROKERS".to_owned(), brokers.join(",")),
            ("VARVE_TIMEOUT".to_owned(), "30s".to_owned()),
        ];
        let tls = "/etc/varve/tls/client";
        if self.manifest.mounts().iter().any(|(path, _)| path == tls) {
            env.push(("VARVE_TLS_CA".to_owned(), format!("{tls}/ca.crt")));
        }
        self.enter(0, "client", &args, &env)
    }

    /// Runs a client and gives what it prints; a failure ends the test.
    pub fn run(&self, args: &[&str]) -> String {
        crate::said(&self.client(args).output().unwrap())
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        for pod in 0..self.pods.len() {
            if let Some(mut child) = self.pods[pod].take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            if std::thread::panicking() {
                loudly(&format!(
                    "--- {}\n{}",
                    self.manifest.pod(pod),
                    self.tail(pod)
                ));
            }
        }
    }
}
