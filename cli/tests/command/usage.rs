//! Exit code 2: the command line makes no sense, and the text says what would.

use crate::ringfence::run;

#[test]
fn what_the_command_line_gets_wrong_is_told_with_exit_code_2() {
    let tls = ["--tls-dir", "/nonexistent", "status"];
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage: ringfence"),
        (&["stats"], "status"),
        (&["status", "--outptu", "json"], "--outptu"),
        (&["-o", "xml", "status"], "table, json, yaml"),
        (&["--timeout", "0", "status"], "between 0.001 and 86400"),
        (&["--timeout", "soon", "status"], "between 0.001 and 86400"),
        (&["status"], "--server HOST:PORT"),
        (&["--server", "east", "status"], "--tls-dir"),
        (&["policy", "apply"], "--filename"),
        (&["policy", "delete"], "NAMES"),
        (&["--server", "127.0.0.1:1", "policy", "get", "a/b/c/d"], "[KIND/][NAMESPACE/]NAME"),
        (&["store", "member"], "move-leader"),
        (&["store", "member", "add"], "ADDRESS"),
        (&["store", "member", "promote", "east"], "invalid value 'east'"),
        (&["ca", "init"], "--dir"),
        (&["ca", "init", "--dir", "/nonexistent", "member/0"], "an ID from 1"),
        (&["ca", "issue", "--dir", "/nonexistent"], "SUBJECT"),
        (&["agent", "probe", "--from", "10.0.0.1"], "--port"),
        (&["agent", "probe", "--from", "web", "--to", "10.0.0.2", "--port", "80"], "invalid IP address"),
        (&["agent", "probe", "--from", "10.0.0.1", "--to", "10.0.0.2", "--port", "0"], "0 is not in"),
        (&["agent", "probe", "--from", "::1", "--to", "::2", "--port", "1", "--protocol", "tpc"], "not a protocol"),
        (&["agent", "probe", "--batch", "--port", "1"], "--batch"),
        (&["agent", "audit", "web-1", "maybe"], "on, off"),
        (&["endpoint", "add", "web-1", "--interface", "veth1"], "--address"),
        (&["endpoint", "add", "web-1", "--address", "10.0.0.1"], "--interface"),
        (&["endpoint", "add", "web-1", "--interface", "veth1", "--address", "web"], "invalid IP address"),
        (&["endpoint", "add", "w", "--interface", "v", "--address", "::1", "--named-port", "80"], "http=8080"),
        (&["endpoint", "delete"], "NAME"),
        (&["monitor", "--type", "trace"], "new, drop, verdict, cut, audit"),
        (&["monitor", "--from", "10.1.2.3/99"], "no end of a flow"),
        (&["monitor", "--to", "=x"], "no key"),
        (&["monitor", "--port", "65536"], "65536"),
        (&["monitor", "--protocol", "tpc"], "not a protocol"),
        (&["monitor", "--count", "0"], "0 is not in"),
        (&["monitor", "-o", "yaml"], "one object a line"),
        (&["bpf", "policy", "list", "--policy", "0"], "0 is not in"),
        (&["bpf", "maps"], "Usage: ringfence bpf"),
    ];
    for (arguments, expected) in cases {
        run(arguments).exits(2).says(&[expected]);
    }
    run(&[&["--server", "127.0.0.1:1"], &tls[..]].concat()).exits(1).says(&["cannot read /nonexistent/ca.crt"]);
}

#[test]
fn addresses_are_checked_before_anything_is_sent() {
    let tls = crate::ringfence::authority();
    let directory = tls.path().to_str().unwrap();
    for bad in ["east", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "https://127.0.0.1:1", ":7400"] {
        run(&["--tls-dir", directory, "--server", bad, "status"]).exits(2).says(&["host:port", bad]);
    }
    run(&["--tls-dir", directory, "--server", "127.0.0.1:1,east", "status"]).exits(2).says(&["\"east\""]);
}
