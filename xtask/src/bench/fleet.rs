//! A fleet of simulated devices: real TLS and MQTT connections, real signatures and journals, one server.

mod broker;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sealift_protocol::api::{HaltView, Status};
use sealift_protocol::id::Version;
use sealift_tests::digits::MODEL;
use sealift_tests::fleet::Server;
use sealift_tests::process::Process;
use serde::Serialize;
use tokio::time::sleep;

use self::broker::{Broker, Choice};
use super::machine::{Machine, connections_to, cpu_s, peak_rss_mb, round, rss_mb, stand_back};

/// A process of simulated devices: each takes four descriptors, and a process has as many as the machine allows it.
const DEVICES_PER_PROCESS: u32 = 2_500;
/// How often the server is asked; less often where an answer costs it more, so that looking is not what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often what devices log is read; they log little.
const READ_EVERY: Duration = Duration::from_millis(50);
/// The longest step: enrolment makes a key, a certificate and a TLS connection for each device.
const STEP_LIMIT: Duration = Duration::from_mins(30);
/// How long devices serve an image on trial: in the field for minutes, in which nothing is heard of it.
const PROBATION: Duration = Duration::from_secs(20);
/// Until what they say then has been stored.
const SETTLED: Duration = Duration::from_secs(10);
/// Devices send a beat a minute, as they do in the field.
const DEVICE_CONFIG: &str = "engine = \"fake\"\nserve_listen = \"127.0.0.1:0\"\nbeat_s = 60\n";

/// Where devices keep their stores, if it is there: memory. Each would have a disk of its own, and waits of thousands for the one of this
/// machine are not what is measured; the server's database stays on it.
const DEVICE_DISKS: &str = "/dev/shm";

/// What is asked of `cargo xtask bench fleet`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
    /// How many devices.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    devices: u32,
    /// Through which broker.
    #[arg(long, value_enum, default_value_t = Choice::Embedded)]
    broker: Choice,
}

/// What was seen. Times are in seconds, from the operator's command to the report that the server has stored. Where the broker is a process
/// of its own, memory and processor time are the server's and its together.
#[derive(Debug, Serialize)]
struct Findings {
    devices: u32,
    broker: Choice,
    /// From the start of the devices until all are enrolled and connected.
    enrol_s: f64,
    /// Resident memory of the server, in MiB: at rest, with all devices connected, and its peak over all.
    server_rest_mb: f64,
    server_connected_mb: f64,
    server_peak_mb: f64,
    /// What a connected device costs the server, in KiB.
    server_per_device_kb: f64,
    first_version: Reached,
    second_version: Reached,
    halt: Obeyed,
    resume: Obeyed,
    rollback: Reached,
    /// After the process was killed that has the connections, and started again: until all are connected.
    reconnect: Reached,
    /// How many devices connect a second then.
    reconnect_rate: f64,
    machine: Machine,
}

/// `halt --all` or `resume`: seconds from the operator's command.
#[derive(Debug, Clone, Serialize)]
struct Obeyed {
    /// Until all devices obey, by what they log themselves.
    reached: f64,
    /// Until all have said so, and the server has stored it.
    confirmed: f64,
}

/// When which share of the devices had got there, in seconds.
#[derive(Debug, Clone, Serialize)]
struct Reached {
    half: f64,
    most: f64,
    all: f64,
    /// CPU time of the server meanwhile, in seconds.
    server_cpu: f64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let findings = runtime.block_on(measure(arguments))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print(&findings);
    }
    Ok(())
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Findings> {
    let directory = tempfile::Builder::new().prefix("sealift-bench-").tempdir()?;
    let disks =
        if Path::new(DEVICE_DISKS).is_dir() { DEVICE_DISKS.as_ref() } else { directory.path() };
    let disks = tempfile::Builder::new().prefix("sealift-bench-").tempdir_in(disks)?;
    let found = measure_in(directory.path(), disks.path(), arguments).await;
    if found.is_err() {
        // What the server and the devices logged says why.
        for kept in [directory.keep(), disks.keep()] {
            eprintln!("kept: {}", kept.display());
        }
    }
    found
}

async fn measure_in(
    directory: &Path,
    disks: &Path,
    arguments: &Arguments,
) -> anyhow::Result<Findings> {
    let mut bench = Bench::begin(directory, arguments).await?;
    let server_rest_mb = bench.sum(rss_mb)?;
    let began = Instant::now();
    bench.start_devices(disks)?;
    let enrolled = bench.reach("online", |status| status.devices_online).await?;
    tell("enrolled and connected", began.elapsed().as_secs_f64());
    // Devices have processors of their own: theirs wait for the server, not the server for them.
    bench.processes.iter().try_for_each(|process| stand_back(process.id()))?;
    let server_connected_mb = bench.sum(rss_mb)?;
    let first_version = bench.roll_out("1").await?;
    let second_version = bench.roll_out("2").await?;
    let halt = bench.obey(&["halt", "--all", "--reason", "bench", "--yes"]).await?;
    let resume = bench.obey(&["resume", "--yes"]).await?;
    let rollback = bench.roll_back("1").await?;
    let server_peak_mb = bench.sum(peak_rss_mb)?;
    let reconnect = bench.reconnect().await?;
    let devices = f64::from(arguments.devices);
    Ok(Findings {
        devices: arguments.devices,
        broker: arguments.broker,
        enrol_s: enrolled.all,
        server_rest_mb: round(server_rest_mb),
        server_connected_mb: round(server_connected_mb),
        server_peak_mb: round(server_peak_mb.max(bench.sum(peak_rss_mb)?)),
        server_per_device_kb: round((server_connected_mb - server_rest_mb) * 1024.0 / devices),
        first_version,
        second_version,
        halt,
        resume,
        rollback,
        reconnect_rate: round(devices / reconnect.all),
        reconnect,
        machine: Machine::read()?,
    })
}

/// A server and its simulated devices.
struct Bench {
    server: Server,
    broker: Broker,
    devices: u32,
    processes: Vec<Process>,
}

impl Bench {
    async fn begin(directory: &Path, arguments: &Arguments) -> anyhow::Result<Self> {
        let &Arguments { devices, broker, .. } = arguments;
        let names: Vec<_> = crews(devices).flat_map(Crew::names).collect();
        let broker = Broker::start(broker, directory, names)?;
        let server = Server::start(directory, &broker.options()).await?;
        server.publish(&sealift_tests::digits::directory("v1"), "1")?;
        server.publish(&sealift_tests::digits::directory("v2"), "2")?;
        Ok(Self { server, broker, devices, processes: Vec::new() })
    }

    /// What the server takes, and the broker with it.
    fn sum(&self, of: impl Fn(u32) -> anyhow::Result<f64>) -> anyhow::Result<f64> {
        let broker = self.broker.id().map_or(Ok(0.0), &of)?;
        Ok(of(self.server.process.id())? + broker)
    }

    fn start_devices(&mut self, directory: &Path) -> anyhow::Result<()> {
        let config = directory.join("devices.toml");
        fs::write(&config, DEVICE_CONFIG)?;
        let uses = self.devices.to_string();
        let token = self.server.ctl(&["enrol", "create", "--uses", &uses])?;
        for Crew { name, devices } in crews(self.devices) {
            let store = directory.join(&name).display().to_string();
            let (count, config) = (devices.to_string(), config.display().to_string());
            let url = self.server.endpoints.device_url.clone();
            let arguments = [
                "simulate",
                "--store",
                &store,
                "--url",
                &url,
                "--token",
                token.trim(),
                "--count",
                &count,
                "--prefix",
                &name,
                "--config",
                &config,
            ];
            let log = directory.join(format!("{name}.log"));
            let environment = [("SEALIFT_LOG", "error,sealift_agent::crowd=info")];
            let process = Process::start(&name, "fleet-agent", &arguments, &environment, &log)?;
            self.processes.push(process);
        }
        Ok(())
    }

    async fn roll_out(&mut self, version: &str) -> anyhow::Result<Reached> {
        let named = format!("{MODEL}@{version}");
        let probation_s = PROBATION.as_secs().to_string();
        let trial = ["--probation-s", &probation_s, "--watch-s", "600"];
        let create = ["rollout", "create", &named, "--reason", "bench"];
        self.server.ctl(&[&create[..], &trial].concat())?;
        let reached = self.reach(version, |status| serving(status, version)).await?;
        tell(&format!("version {version} everywhere"), reached.all);
        // What the last of them keep and say then is of this rollout, not of what is measured next.
        sleep(PROBATION + SETTLED).await;
        Ok(reached)
    }

    async fn roll_back(&mut self, version: &str) -> anyhow::Result<Reached> {
        self.server.ctl(&["rollback", MODEL, "--reason", "bench", "--yes"])?;
        let reached = self.reach("rolled back", |status| serving(status, version)).await?;
        tell("rolled back", reached.all);
        Ok(reached)
    }

    /// Halts or resumes, and waits until all devices obey, and until all have said so.
    async fn obey(&self, command: &[&str]) -> anyhow::Result<Obeyed> {
        let api = self.server.api()?;
        let (began, mut reached) = (Instant::now(), None);
        self.server.ctl(command)?;
        let HaltView { sequence, .. } = api.get("halt").await?;
        let mut next_look = LOOK_EVERY;
        loop {
            let now = began.elapsed();
            if reached.is_none() && self.processes.iter().all(|process| obeys(process, sequence)) {
                reached = Some(now);
            }
            if now >= next_look {
                next_look = now + LOOK_EVERY;
                let view: HaltView = api.get("halt").await?;
                if view.confirmed >= u64::from(self.devices) {
                    let confirmed = began.elapsed();
                    let reached = round(reached.unwrap_or(confirmed).as_secs_f64());
                    let confirmed = round(confirmed.as_secs_f64());
                    tell(&format!("{} reached all", command.join(" ")), reached);
                    tell(&format!("{} confirmed", command.join(" ")), confirmed);
                    return Ok(Obeyed { reached, confirmed });
                }
                ensure!(now < STEP_LIMIT, "{view:?} after {STEP_LIMIT:?}");
            }
            ensure!(!crate::child::is_interrupted(), "interrupted");
            sleep(READ_EVERY).await;
        }
    }

    /// What has the connections is killed; all devices find it again by themselves.
    async fn reconnect(&mut self) -> anyhow::Result<Reached> {
        if !self.broker.restart()? {
            self.server.process.kill()?;
            self.server.process.restart()?;
            self.server.ready().await?;
        }
        let port = self.server.endpoints.mqtt.rsplit(':').next().context("no port")?.parse()?;
        let others = self.broker.connections_of_server();
        // The server remembers who was there; who is there now, only the connections tell.
        let count =
            move |_: &Status| connections_to(port).unwrap_or_default().saturating_sub(others);
        let reached = self.reach("connected again", count).await?;
        tell("connected again", reached.all);
        Ok(reached)
    }

    /// Waits until all devices are counted.
    async fn reach(
        &mut self,
        what: &str,
        count: impl Fn(&Status) -> u64,
    ) -> anyhow::Result<Reached> {
        let (began, api) = (Instant::now(), self.server.api()?);
        let cpu_before = self.sum(cpu_s)?;
        let all = u64::from(self.devices);
        let (mut half, mut most) = (None, None);
        loop {
            self.server.process.check()?;
            for process in &mut self.processes {
                process.check()?;
            }
            // A server that is busy answers late; that it does not answer at all is a failure of the bench.
            let asked = Instant::now();
            let status: Status = api.get("status").await?;
            let rest = LOOK_EVERY.max(asked.elapsed() * 9);
            let (reached, now_s) = (count(&status), round(began.elapsed().as_secs_f64()));
            if reached * 2 >= all {
                half.get_or_insert(now_s);
            }
            if reached * 100 >= all * 99 {
                most.get_or_insert(now_s);
            }
            if reached >= all {
                let (half, most) = (half.unwrap_or(now_s), most.unwrap_or(now_s));
                let server_cpu = round(self.sum(cpu_s)? - cpu_before);
                return Ok(Reached { half, most, all: now_s, server_cpu });
            }
            if began.elapsed() > STEP_LIMIT {
                bail!("{reached} of {all} devices are {what} after {STEP_LIMIT:?}");
            }
            ensure!(!crate::child::is_interrupted(), "interrupted");
            sleep(rest).await;
        }
    }
}

/// The simulated devices of one process.
struct Crew {
    name: String,
    devices: u32,
}

impl Crew {
    /// What the agent calls them.
    fn names(self) -> impl Iterator<Item = String> {
        let Self { name, devices } = self;
        (1..=devices).map(move |number| format!("{name}-{number}"))
    }
}

/// So many devices, by process.
fn crews(devices: u32) -> impl Iterator<Item = Crew> {
    (1..=devices.div_ceil(DEVICES_PER_PROCESS)).map(move |number| Crew {
        name: format!("sim{number}"),
        devices: (devices - (number - 1) * DEVICES_PER_PROCESS).min(DEVICES_PER_PROCESS),
    })
}

/// Devices that report to serve the version.
fn serving(status: &Status, version: &str) -> u64 {
    let of_model = status.adoption.iter().filter(|adoption| adoption.model.to_string() == MODEL);
    let is_it = |served: &Version| served.to_string() == version;
    let of_version = of_model.filter(|adoption| adoption.version.as_ref().is_some_and(is_it));
    of_version.map(|adoption| adoption.devices).sum()
}

/// Whether all devices of a process say that they obey a list of halted rollouts.
fn obeys(process: &Process, sequence: u64) -> bool {
    let list = format!("sequence={sequence} ");
    let is_it =
        |line: &str| line.contains("all obey the list of halted rollouts") && line.contains(&list);
    process.log().lines().any(is_it)
}

fn tell(what: &str, seconds: f64) {
    eprintln!("{what}: {seconds:.1} s");
}

fn print(found: &Findings) {
    let line = |what: &str, reached: &Reached| {
        println!(
            "{what:<24} half {:>7} s, 99 % {:>7} s, all {:>7} s; server {:>6} s of CPU",
            reached.half, reached.most, reached.all, reached.server_cpu
        );
    };
    let broker = if found.broker == Choice::Embedded { "" } else { " and mosquitto" };
    println!("{} simulated devices on {}", found.devices, found.machine);
    println!("enrolled and connected   all {:>7} s", found.enrol_s);
    line("first version", &found.first_version);
    line("second version", &found.second_version);
    for (what, Obeyed { reached, confirmed }) in [("halt", &found.halt), ("resume", &found.resume)]
    {
        println!("{what:<24} all {reached:>7} s obey, confirmed by all {confirmed:>7} s");
    }
    line("rollback", &found.rollback);
    line("connected again", &found.reconnect);
    println!("{:>8} devices connect again a second", found.reconnect_rate);
    println!(
        "server{broker}: {} MiB at rest, {} MiB with all connected ({} KiB a device), {} MiB at its peak",
        found.server_rest_mb,
        found.server_connected_mb,
        found.server_per_device_kb,
        found.server_peak_mb
    );
}
