//! `evenkeel events`: what happened in a running instance, and what happens.

use std::io::Write as _;
use std::process::ExitCode;

use super::instance::{InstanceOptions, block_on};
use super::status::Output;
use crate::admin::model::{Event, Events, Missed};

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with what comes, until it is interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only from this number on
    #[arg(long, value_name = "NUMBER")]
    since: Option<u64>,
    /// How to print them; JSON: one object a line
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    instance: InstanceOptions,
}

/// A message of a stream is an event of less than a kilobyte.
const LARGEST: usize = 64 * 1024;

/// Asks, and prints.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    let since = args.since.unwrap_or(0);
    let path = format!("/api/v1/events?since={since}");
    block_on(async {
        if !args.follow {
            let events: Events = instance.get(&path).await?;
            events
                .events
                .iter()
                .for_each(|event| show(event, args.output));
            return Ok(ExitCode::SUCCESS);
        }
        let mut stream = instance.follow(&path).await?;
        let mut text = Vec::new();
        loop {
            let chunk = tokio::select! {
                chunk = stream.chunk() => chunk,
                ended = super::interrupted() => return Ok(ended.map(|()| ExitCode::SUCCESS)?),
            };
            let Some(chunk) = chunk.unwrap_or(None) else {
                anyhow::bail!("the instance has ended");
            };
            text.extend_from_slice(&chunk);
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                let message: Vec<u8> = text.drain(..end + 2).collect();
                tell(&String::from_utf8_lossy(&message), args.output);
            }
            anyhow::ensure!(text.len() < LARGEST, "what answers sends no events");
        }
    })
}

/// Prints a message of the stream, if it is one for us.
fn tell(message: &str, output: Output) {
    let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
    let data = field("data: ").unwrap_or_default();
    match field("event: ") {
        Some("event") => {
            if let Ok(event) = serde_json::from_str::<Event>(data) {
                show(&event, output);
            }
        }
        Some("missed") => {
            if let Ok(Missed {
                first: Some(first), ..
            }) = serde_json::from_str(data)
            {
                eprintln!("evenkeel: what came before number {first} is not kept any more");
            }
        }
        _ => {}
    }
}

fn show(event: &Event, output: Output) {
    let line = match output {
        Output::Json => serde_json::to_string(event).unwrap_or_default(),
        Output::Table => {
            let of = event
                .service
                .as_deref()
                .or(event.name.as_deref())
                .unwrap_or("-");
            let mark = if event.severity == "warning" {
                "!"
            } else {
                " "
            };
            format!(
                "{} {mark} {:<20} {of}: {}",
                event.at, event.kind, event.text
            )
        }
    };
    // Whoever read it may have left: `events | head`.
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}
