//! Takes role metadata out of the kernel's own lines, in which its command line stands: what they hold is for nobody who reads logs.
use std::borrow::Cow;

/// What role metadata on the kernel command line begin with.
const ROLE: &str = "kscratch.role=";

/// A line of the kernel's log, without what each `kscratch.role=` in it is set to. A value ends at the next space: it is base64.
#[must_use]
pub fn without_role(line: &str) -> Cow<'_, str> {
    let Some(first) = line.find(ROLE) else { return Cow::Borrowed(line) };
    let mut told = String::with_capacity(line.len());
    let mut rest = line;
    let mut next = Some(first);
    while let Some(at) = next {
        let (before, value) = rest.split_at(at + ROLE.len());
        told.push_str(before);
        told.push('…');
        rest = value.find(' ').map_or("", |end| &value[end..]);
        next = rest.find(ROLE);
    }
    told.push_str(rest);
    Cow::Owned(told)
}

#[cfg(test)]
mod tests {
    use super::without_role;

    #[test]
    fn no_value_is_told() {
        for (line, want) in [
            ("Linux version 6.12", "Linux version 6.12"),
            ("Command line: a kscratch.role=cm9sZQ== b", "Command line: a kscratch.role=… b"),
            ("kscratch.role=x kscratch.role=y", "kscratch.role=… kscratch.role=…"),
            ("kscratch.role=", "kscratch.role=…"),
            ("a kscratch.role= b", "a kscratch.role=… b"),
        ] {
            assert_eq!(without_role(line), want);
        }
    }
}
