//! How much memory there may be, and how much is in use: of this process, or of its control group.
//!
//! A control group's limit is what the kernel kills by. Those of the groups around it hold as well,
//! for all of their members together, so the one that is nearest to its limit counts. Pages of files
//! are in use by the kernel's account, but it takes them back before it kills: they are left out, or
//! somebody who reads files beside us would shut our clients out.
//!
//! cgroup v2: memory.max, memory.current, memory.stat (Linux, Documentation/admin-guide/
//! cgroup-v2.rst); v1: memory.limit_in_bytes, memory.usage_in_bytes. A look is a few small reads.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::param::page_size;

/// A bound on memory.
#[derive(Debug)]
pub struct Budget(Kind);

#[derive(Debug)]
enum Kind {
    /// So many bytes for this process.
    Own(u64),
    /// Those of its control groups that may have a limit, the innermost first.
    Groups(Vec<PathBuf>, &'static Names),
}

/// What is in use of how much, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// In use.
    pub used: u64,
    /// At most.
    pub budget: u64,
}

/// The files of a version of control groups.
#[derive(Debug)]
struct Names {
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    /// Pages of files, by their lines in `memory.stat`, with the space behind the name.
    files: [&'static str; 2],
}

const V2: Names = Names {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    used: "memory.current",
    files: ["inactive_file ", "active_file "],
};

const V1: Names = Names {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    files: ["total_inactive_file ", "total_active_file "],
};

/// A limit that is none: v1 says the largest number of whole pages.
const UNLIMITED: u64 = 1 << 60;

impl Budget {
    /// So many bytes for what of this process is in RAM.
    pub fn own(bytes: u64) -> Budget {
        Budget(Kind::Own(bytes))
    }

    /// That of this process's control groups, if there is one now.
    pub fn of_group() -> Option<Budget> {
        Budget::below(Path::new("/"))
    }

    fn below(root: &Path) -> Option<Budget> {
        let membership = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let budgets = [&V2, &V1].into_iter().filter_map(|names| {
            let group = group(&membership, std::ptr::eq(names, &V1))?;
            let groups = groups(&root.join(names.mount), group, names);
            Some(Budget(Kind::Groups(groups, names)))
        });
        let mut limited = budgets.filter(|budget| budget.look().is_some());
        limited.next()
    }

    /// Looks. `None`: nothing limits it any more, or it cannot be read.
    pub fn look(&self) -> Option<Look> {
        match &self.0 {
            Kind::Own(budget) => Some(Look {
                used: resident()?,
                budget: *budget,
            }),
            Kind::Groups(groups, names) => {
                let looks = groups.iter().filter_map(|group| look(group, names));
                looks.max_by(|a, b| {
                    let share = |x: &Look, of: &Look| u128::from(x.used) * u128::from(of.budget);
                    share(a, b).cmp(&share(b, a))
                })
            }
        }
    }
}

/// The path of this process's group: in v2 on the line `0::PATH`, in v1 on the one of `memory`.
fn group(membership: &str, v1: bool) -> Option<&str> {
    membership.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let fits = match v1 {
            false => number == "0" && controllers.is_empty(),
            true => controllers.split(',').any(|c| c == "memory"),
        };
        fits.then_some(path)
    })
}

/// The group and those around it, as far as they can be seen: in a container the mount may begin at
/// its own group while the path is the host's.
fn groups(mount: &Path, group: &str, names: &Names) -> Vec<PathBuf> {
    let innermost = mount.join(group.trim_start_matches('/'));
    let around = innermost.ancestors().take_while(|a| a.starts_with(mount));
    let with_limit = around.filter(|a| a.join(names.limit).is_file());
    with_limit.map(Path::to_path_buf).collect()
}

fn look(group: &Path, names: &Names) -> Option<Look> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    // `max` is no number.
    let budget: u64 = read(names.limit)?.trim().parse().ok()?;
    if budget >= UNLIMITED {
        return None;
    }
    let used: u64 = read(names.used)?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let files = names.files.iter().filter_map(|name| {
        let mut lines = stat.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    });
    Some(Look {
        used: used.saturating_sub(files.sum()),
        budget,
    })
}

/// What of this process is in RAM: the second number of proc_pid_statm(5), in pages.
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("there is a place for temporary files");
        for (name, text) in files {
            let path = root.path().join(name);
            let folder = path.parent().expect("it is in a folder");
            fs::create_dir_all(folder).expect("the folder can be written");
            fs::write(path, text).expect("the folder can be written");
        }
        root
    }

    #[test]
    fn the_limit_that_is_nearest_counts() {
        const MEMBER: (&str, &str) = ("proc/self/cgroup", "0::/a/b\n");
        type Files = &'static [(&'static str, &'static str)];
        type Row = (&'static str, Files, Option<(u64, u64)>);
        let rows: &[Row] = &[
            ("no control groups", &[], None),
            (
                "a group without a limit",
                &[MEMBER, ("sys/fs/cgroup/a/b/memory.max", "max\n")],
                None,
            ),
            (
                "its own, without pages that can go",
                &[
                    MEMBER,
                    ("sys/fs/cgroup/a/b/memory.max", "1000\n"),
                    ("sys/fs/cgroup/a/b/memory.current", "600\n"),
                    (
                        "sys/fs/cgroup/a/b/memory.stat",
                        "anon 5\ninactive_file 100\nactive_file 20\n",
                    ),
                ],
                Some((480, 1000)),
            ),
            (
                "a smaller one around it",
                &[
                    MEMBER,
                    ("sys/fs/cgroup/a/b/memory.max", "1000\n"),
                    ("sys/fs/cgroup/a/b/memory.current", "300\n"),
                    ("sys/fs/cgroup/a/memory.max", "800\n"),
                    ("sys/fs/cgroup/a/memory.current", "700\n"),
                ],
                Some((700, 800)),
            ),
            (
                "a smaller one around it that is farther",
                &[
                    MEMBER,
                    ("sys/fs/cgroup/a/b/memory.max", "1000\n"),
                    ("sys/fs/cgroup/a/b/memory.current", "900\n"),
                    ("sys/fs/cgroup/a/memory.max", "800\n"),
                    ("sys/fs/cgroup/a/memory.current", "400\n"),
                ],
                Some((900, 1000)),
            ),
            (
                "a container that sees its own group as the root",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "1000\n"),
                    ("sys/fs/cgroup/memory.current", "10\n"),
                ],
                Some((10, 1000)),
            ),
            (
                "one that is told the host's path",
                &[
                    ("proc/self/cgroup", "0::/docker/1234\n"),
                    ("sys/fs/cgroup/memory.max", "1000\n"),
                    ("sys/fs/cgroup/memory.current", "10\n"),
                ],
                Some((10, 1000)),
            ),
            (
                "v1, beside a v2 without memory",
                &[
                    (
                        "proc/self/cgroup",
                        "4:cpu,memory:/a\n1:name=systemd:/x\n0::/a\n",
                    ),
                    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n"),
                    ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "600\n"),
                    (
                        "sys/fs/cgroup/memory/a/memory.stat",
                        "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 7\n",
                    ),
                    (
                        "sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                    ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n"),
                ],
                Some((543, 1000)),
            ),
            (
                "v1 without a limit",
                &[
                    ("proc/self/cgroup", "4:memory:/\n"),
                    (
                        "sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                    ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n"),
                ],
                None,
            ),
            (
                "what cannot be understood",
                &[
                    MEMBER,
                    ("sys/fs/cgroup/a/b/memory.max", "much"),
                    ("sys/fs/cgroup/a/b/memory.current", "-1"),
                ],
                None,
            ),
        ];
        for (rule, files, expected) in rows {
            let root = root(files);
            let look = Budget::below(root.path()).and_then(|budget| budget.look());
            let expected = expected.map(|(used, budget)| Look { used, budget });
            assert_eq!(look, expected, "{rule}");
        }
    }

    #[test]
    fn a_limit_that_changes_is_seen() {
        let root = root(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "1000\n"),
            ("sys/fs/cgroup/memory.current", "10\n"),
        ]);
        let budget = Budget::below(root.path()).expect("it has a limit");
        let limit = root.path().join("sys/fs/cgroup/memory.max");
        for (text, expected) in [("2000\n", Some(2000)), ("max\n", None), ("5\n", Some(5))] {
            fs::write(&limit, text).expect("the folder can be written");
            assert_eq!(budget.look().map(|look| look.budget), expected);
        }
    }

    #[test]
    fn this_process_uses_memory() {
        let look = Budget::own(1 << 40).look().expect("it can be read");
        assert!(look.used > 100_000 && look.budget == 1 << 40, "{look:?}");
    }
}
