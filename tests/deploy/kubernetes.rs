//! `deploy/kubernetes/rendered`: each balancer's configuration loads with the volumes that its pod
//! mounts, and agrees with the manifest around it.
//!
//! That the manifests are what Kubernetes takes is for `.ci/run`, with tools that know it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel::config::{Config, Discover, Loader};
use serde_json::Value;

use crate::support::server::{binary, output};

/// Where the balancer's own files are in the pod.
const CONFIG: &str = "/etc/evenkeel";
/// What `evenkeel backend` takes at most for what is under way once it has lingered.
const SAMPLE_GRACE: Duration = evenkeel::sample::GRACE;

#[test]
fn what_is_rendered_agrees_with_itself() {
    let mut balancers = 0;
    let mut wrong = Vec::new();
    for file in ["dev", "prod", "sidecar"] {
        let path = format!("deploy/kubernetes/rendered/{file}.yaml");
        let text = fs::read_to_string(&path).expect("render.sh has made it");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
        for deployment in of_kind(&objects, "Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            for container in containers(pod) {
                if container["args"][0] == "run" {
                    balancers += 1;
                    let mut balancer = Balancer {
                        objects: &objects,
                        deployment,
                        pod,
                        container,
                        wrong: Vec::new(),
                    };
                    balancer.examine();
                    wrong.extend(balancer.wrong.iter().map(|what| format!("{path}: {what}")));
                }
            }
        }
    }
    assert_eq!(balancers, 3);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A container that runs the balancer, and what is around it.
struct Balancer<'a> {
    objects: &'a [Value],
    deployment: &'a Value,
    pod: &'a Value,
    container: &'a Value,
    wrong: Vec<String>,
}

impl Balancer<'_> {
    fn examine(&mut self) {
        let folder = tempfile::tempdir().expect("a folder");
        let config = self.load(folder.path());
        self.ports(&config);
        self.probes(&config);
        self.times(&config);
        self.folders(&config, folder.path());
        self.names(&config);
        let cpu = text(&self.container["resources"]["limits"]["cpu"]);
        let whole = cpu.parse::<u32>().is_ok();
        self.hold(whole, || {
            format!("workers are whole, and {cpu} CPUs are not")
        });
    }

    fn hold(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(otherwise());
        }
    }

    /// Its configuration, by `evenkeel check` and as it is then, with each volume a folder of ours.
    fn load(&mut self, folder: &Path) -> Config {
        let mounts = list(&self.container["volumeMounts"]);
        for mount in mounts {
            let made = within(folder, text(&mount["mountPath"]));
            fs::create_dir_all(&made).expect("a folder");
            let volumes = list(&self.pod["volumes"]);
            let volume = volumes.iter().find(|v| v["name"] == mount["name"]);
            let volume = volume.expect("the API server would refuse it");
            if let Some(name) = volume["configMap"]["name"].as_str() {
                let map = named(self.objects, "ConfigMap", name).expect("it is made with the rest");
                for (file, content) in map["data"].as_object().expect("texts") {
                    fs::write(made.join(file), here(text(content), mounts, folder))
                        .expect("writable");
                }
            } else if volume["secret"].is_object() {
                // What a Secret of type kubernetes.io/tls holds.
                run(&["cert", "dev", "--out", &made.display().to_string()]);
                fs::rename(made.join("dev.pem"), made.join("tls.crt")).expect("made");
                fs::rename(made.join("dev.key"), made.join("tls.key")).expect("made");
            }
        }
        // What is done before it is started: a certificate.
        for container in list(&self.pod["initContainers"]) {
            if container["restartPolicy"] != "Always" {
                let args = list(&container["args"]).iter().map(text);
                let args: Vec<_> = args
                    .map(|arg| arg.replace("=/", &format!("={}/", folder.display())))
                    .collect();
                run(&args.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
        let file = within(folder, CONFIG).join("evenkeel.toml");
        let said = run(&["check", &file.display().to_string()]);
        self.hold(!said.contains("warning"), || said);
        let variables = list(&self.container["env"]).iter();
        let variables = variables.map(|v| (text(&v["name"]).into(), text(&v["value"]).into()));
        let loader = Loader::file(&file).environment(variables).open_files();
        loader.load().expect("it was checked").config
    }

    /// The ports of the container are those it listens on, and a Service leads to listeners alone.
    fn ports(&mut self, config: &Config) {
        let probe = config.probe.expect("Kubernetes asks it").port();
        let mut listeners: Vec<_> = config.listeners.iter().map(|l| l.address.port()).collect();
        listeners.sort_unstable();
        let mut declared = ports(self.container);
        declared.retain(|port| *port != probe);
        declared.sort_unstable();
        self.hold(declared == listeners, || {
            format!("the container's ports {declared:?} are not those of listeners, {listeners:?}")
        });
        let labels = &self.deployment["spec"]["template"]["metadata"]["labels"];
        let mut published = 0;
        for service in of_kind(self.objects, "Service") {
            if !selects(&service["spec"]["selector"], labels) {
                continue;
            }
            for entry in list(&service["spec"]["ports"]) {
                let port = self.port(&entry["targetPort"]);
                let name = text(&service["metadata"]["name"]);
                self.hold(port.is_some(), || {
                    format!("{name} leads to no port of the pod")
                });
                self.hold(port != Some(probe), || {
                    format!("{name} publishes the probe")
                });
                published += usize::from(port.is_some_and(|port| listeners.contains(&port)));
            }
        }
        self.hold(published == listeners.len(), || {
            format!(
                "{published} of {} listeners are in a Service",
                listeners.len()
            )
        });
        let policies = of_kind(self.objects, "NetworkPolicy");
        let policy = policies
            .into_iter()
            .find(|policy| selects(&policy["spec"]["podSelector"]["matchLabels"], labels))
            .expect("one for these pods");
        let open = rules(policy, "ingress", "from", |from| from.is_empty());
        self.hold(listeners.iter().all(|port| open.contains(port)), || {
            format!("clients reach {open:?}, and it listens on {listeners:?}")
        });
    }

    /// The kubelet asks the probe listener, which is not on loopback, and gives it more time than the
    /// drain's wait.
    fn probes(&mut self, config: &Config) {
        let probe = config.probe.expect("looked at");
        self.hold(!probe.ip().is_loopback(), || {
            format!("the kubelet does not reach {probe}")
        });
        for (kind, path) in [
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", "/readyz"),
        ] {
            let asked = &self.container[kind]["httpGet"];
            let port = self.port(&asked["port"]);
            self.hold(port == Some(probe.port()), || {
                format!("{kind} asks {port:?}, and the probe listener is on {probe}")
            });
            self.hold(asked["path"] == path, || {
                format!("{kind}: {}", asked["path"])
            });
        }
        let readiness = &self.container["readinessProbe"];
        let patience = number(&readiness["periodSeconds"]) * number(&readiness["failureThreshold"]);
        let wait = config.drain.wait.as_secs();
        self.hold(patience > wait, || {
            format!("unready after {patience} s, while the drain waits {wait} s")
        });
    }

    /// preStop and `[drain]` say the same, and nobody kills it before that is over.
    fn times(&mut self, config: &Config) {
        let hook = list(&self.container["lifecycle"]["preStop"]["exec"]["command"]).iter();
        let hook: Vec<&str> = hook.map(text).collect();
        let [program, "drain", "--wait", wait] = hook[..] else {
            return self.wrong.push(format!("the preStop hook is {hook:?}"));
        };
        self.hold(program == "evenkeel", || {
            format!("{program} is not in the image")
        });
        let wait = duration(wait);
        let drain = &config.drain;
        self.hold(wait == drain.wait, || {
            format!("preStop waits {wait:?}, and [drain] says {:?}", drain.wait)
        });
        // A sidecar's TERM comes when the others have ended, the hooks of all at once.
        let apps = list(&self.pod["containers"]).iter().map(lingers);
        let first = apps.max().unwrap_or_default().max(wait);
        let drained = first + drain.requests.max(drain.streams);
        let grace = Duration::from_secs(number(&self.pod["terminationGracePeriodSeconds"]));
        self.hold(drained < grace, || {
            format!("a drain takes {drained:?}, and the grace period is {grace:?}")
        });
        for scaler in of_kind(self.objects, "HorizontalPodAutoscaler") {
            let window = &scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"];
            let window = Duration::from_secs(number(window));
            self.hold(window > grace, || {
                format!("scales down after {window:?}, while pods drain for {grace:?}")
            });
        }
    }

    /// The socket, the token and what DNS said can be written, in folders that it makes itself.
    fn folders(&mut self, config: &Config, folder: &Path) {
        let state = config
            .state_dir
            .as_ref()
            .expect("restarts while DNS is down");
        let state = state.strip_prefix(folder).expect("absolute");
        for wanted in [Path::new("run/evenkeel"), state] {
            let mount = list(&self.container["volumeMounts"]).iter().find(|mount| {
                let at = Path::new(text(&mount["mountPath"])).strip_prefix("/");
                // Above it: an emptyDir itself can be written by others, which it would refuse.
                at.is_ok_and(|at| wanted.starts_with(at) && wanted != at)
            });
            let writable = mount.is_some_and(|mount| {
                let volumes = list(&self.pod["volumes"]);
                let volume = volumes.iter().find(|v| v["name"] == mount["name"]);
                mount["readOnly"] != true && volume.is_some_and(|v| v["emptyDir"].is_object())
            });
            self.hold(writable, || format!("/{} cannot be made", wanted.display()));
        }
    }

    /// Each SRV name is absolute, and that of a headless Service's named port, where that is here too.
    fn names(&mut self, config: &Config) {
        let namespace = text(&self.deployment["metadata"]["namespace"]);
        let mut asked = 0;
        for service in &config.services {
            let Discover::Srv { name, .. } = &service.discover else {
                continue;
            };
            asked += 1;
            let labels: Vec<&str> = name.split('.').collect();
            let [port, "_tcp", of, within, "svc", "cluster", "local", ""] = labels[..] else {
                self.wrong.push(format!(
                    "{name} is no name of a Service, or has no final dot"
                ));
                continue;
            };
            if within != namespace {
                continue;
            }
            let port = port.trim_start_matches('_');
            let Some(target) = self.headless(of, port) else {
                self.wrong.push(format!(
                    "{name}: no headless Service {of} with a port {port}"
                ));
                continue;
            };
            let labels = &self.deployment["spec"]["template"]["metadata"]["labels"];
            let policies = of_kind(self.objects, "NetworkPolicy").into_iter();
            let open: Vec<_> = policies
                .filter(|policy| selects(&policy["spec"]["podSelector"]["matchLabels"], labels))
                .flat_map(|policy| rules(policy, "egress", "to", |to| !to.is_empty()))
                .collect();
            self.hold(open.contains(&target), || {
                format!("backends are on {target}, and it may connect to {open:?}")
            });
        }
        self.hold(asked > 0, || "it asks DNS for nobody".into());
    }

    /// The pods' own port behind that port of a headless Service: what they listen on, too.
    fn headless(&self, name: &str, port: &str) -> Option<u16> {
        let service = named(self.objects, "Service", name)?;
        let headless = service["spec"]["clusterIP"] == "None";
        let ports = list(&service["spec"]["ports"]);
        let port = ports
            .iter()
            .find(|entry| entry["name"] == port && headless)?;
        let mut deployments = of_kind(self.objects, "Deployment").into_iter();
        let deployment = deployments.find(|deployment| {
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            selects(&service["spec"]["selector"], labels)
        })?;
        let apps = list(&deployment["spec"]["template"]["spec"]["containers"]).iter();
        apps.filter(|app| argument(app, "--listen=").is_some())
            .find_map(|app| {
                let listens = argument(app, "--listen=")?
                    .rsplit(':')
                    .next()?
                    .parse::<u16>()
                    .ok()?;
                let target = resolve(app, &port["targetPort"])?;
                (target == listens && number(&port["port"]) == u64::from(target)).then_some(target)
            })
    }

    fn port(&self, wanted: &Value) -> Option<u16> {
        let all = containers(self.pod).into_iter();
        all.filter_map(|container| resolve(container, wanted))
            .next()
    }
}

fn run(arguments: &[&str]) -> String {
    let output = output(binary().args(arguments));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// A text with what it says of files in volumes as they are in our folder.
fn here(text_of_pod: &str, mounts: &[Value], folder: &Path) -> String {
    let mut here = text_of_pod.to_owned();
    for mount in mounts {
        let at = text(&mount["mountPath"]);
        for end in ["/", "\""] {
            let ours = format!("\"{}{at}{end}", folder.display());
            here = here.replace(&format!("\"{at}{end}"), &ours);
        }
    }
    here
}

/// Where something of the pod is in our folder.
fn within(folder: &Path, path: &str) -> PathBuf {
    folder.join(path.trim_start_matches('/'))
}

/// How long an app that is `evenkeel backend` takes to end.
fn lingers(app: &Value) -> Duration {
    let lingers = argument(app, "--linger=");
    lingers.map_or(Duration::ZERO, |time| duration(time) + SAMPLE_GRACE)
}

fn argument<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let mut args = list(&container["args"]).iter().map(text);
    args.find_map(|arg| arg.strip_prefix(name))
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).expect("a time")
}

/// Sidecars too: init containers that go on.
fn containers(pod: &Value) -> Vec<&Value> {
    let sidecars = list(&pod["initContainers"]).iter();
    let sidecars = sidecars.filter(|container| container["restartPolicy"] == "Always");
    sidecars.chain(list(&pod["containers"])).collect()
}

fn ports(container: &Value) -> Vec<u16> {
    let ports = list(&container["ports"]).iter();
    ports
        .filter_map(|port| port["containerPort"].as_u64()?.try_into().ok())
        .collect()
}

/// A port by its name or number.
fn resolve(container: &Value, wanted: &Value) -> Option<u16> {
    let mut ports = list(&container["ports"]).iter();
    let port = ports.find(|p| p["name"] == *wanted || p["containerPort"] == *wanted)?;
    port["containerPort"].as_u64()?.try_into().ok()
}

/// Ports that a policy opens, of the rules whose peers are as wanted.
fn rules(
    policy: &Value,
    direction: &str,
    peers: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> Vec<u16> {
    let rules = list(&policy["spec"][direction]).iter();
    rules
        .filter(|rule| wanted(list(&rule[peers])))
        .flat_map(|rule| list(&rule["ports"]))
        .filter_map(|port| port["port"].as_u64()?.try_into().ok())
        .collect()
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object();
    selector.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    let mut objects = of_kind(objects, kind).into_iter();
    objects.find(|object| object["metadata"]["name"] == name)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
