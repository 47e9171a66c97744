use proptest::prelude::*;

use super::*;

#[test]
fn plain_scalars_are_what_the_core_schema_says() {
    let cases = [
        (ScalarKind::Null, &["", "~", "null"][..]),
        (ScalarKind::Boolean, &["true", "False"]),
        (ScalarKind::Number, &["0", "-1", "8080", "1.5", "1e3", ".5", "0x50", "0o7", "-.inf", ".nan", "1."]),
        (ScalarKind::Text, &["a", "yes", "on", "0b1", "1_000", "inf", "nan", "-", ".", "0x", "1.2.3", "10.0.0.0/8"]),
    ];
    for (kind, texts) in cases {
        for text in texts {
            assert_eq!(Scalar { text: (*text).into(), plain: true }.kind(), kind, "{text}");
            assert_eq!(Scalar { text: (*text).into(), plain: false }.kind(), ScalarKind::Text, "{text}");
        }
    }
}

/// The only document of a text without findings.
fn document(text: &str) -> Document {
    let Documents { mut documents, diagnostics } = read(text);
    assert_eq!((documents.len(), diagnostics), (1, vec![]), "{text}");
    documents.remove(0)
}

fn findings(text: &str) -> String {
    read(text).diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_nul_is_refused_where_it_stands() {
    let help = "(help: save the file as UTF-8 text; it may be UTF-16, or no text at all)";
    for (text, place) in [("\0", "1:1"), ("a: 1\r\n# é\0", "2:4"), ("{\"a\":\r\"\0\"}", "2:2")] {
        assert_eq!(
            findings(text),
            format!("{place}: error: a NUL character (U+0000) is not allowed {help}"),
            "{text:?}"
        );
        assert_eq!(read(text).documents, [], "{text:?}");
    }
}

#[test]
fn files_that_begin_with_a_byte_order_mark_can_be_put_together() {
    const MARK: char = '\u{feff}';
    for between in [
        "---\nM",
        "M---\n",
        "...\nM",
        "M...\n",
        "...\nM--- # next\nM",
        "---\n# note\nM",
        "\r\n---\r\nM\r\n",
        "\r---\rM\r",
    ] {
        let text = format!("MMa: 1\n{between}b: 2\n");
        let (with, without) = (text.replace('M', "\u{feff}"), text.replace('M', ""));
        assert_eq!(read(&with), read(&without), "{with:?}");
        let texts: Vec<_> = read(&with).documents.into_iter().map(|document| document.text).collect();
        assert_eq!(texts.len(), 2, "{with:?}");
        assert!(texts[1].ends_with("b: 2\n") && !texts[1].contains(MARK), "{texts:?}");
    }
    for inside in ["a: 1\nMb: 2\n", "- 1\n--- |\nMtext\n", "a: 1\nM# note\nb: 2\n"] {
        let text = inside.replace('M', "\u{feff}");
        assert!(findings(&text).contains("a byte order mark must not appear inside a document"), "{text:?}");
    }
}

#[test]
fn a_document_keeps_what_is_no_blank() {
    for text in ["\u{c}\r[", "\u{b}\n[1]", "\u{a0}\na: 1", "\u{2028}\n- a"] {
        for document in read(text).documents {
            assert_eq!(document.text, text, "{text:?}");
        }
    }
    assert_eq!(document("\r\n\t\n  [1]\n").text, "  [1]\n");
}

#[test]
fn a_document_that_what_follows_is_not_set_off_from_is_not_read() {
    for text in [" |\n  text\n>-\na: 1", "a: 1\n}\n", "[1]\n[2]\n"] {
        assert_eq!(read(text).documents, [], "{text:?}");
        assert!(findings(text).contains("not valid YAML"), "{text:?}");
    }
    let texts: Vec<_> = read("a: 1\n---\nb: [\n").documents.into_iter().map(|document| document.text).collect();
    assert_eq!(texts, ["a: 1\n"], "what is set off stays");
}

#[test]
fn json_is_read_directly_if_it_is_plainly_right() {
    let good = [
        "{}",
        " [ ]\n",
        "[0, -0, 10, 1.5, -1E+2, 1e-07, true, false, null]",
        "{\"a\": {\"a\": [\"\"]}}",
        r#"["\"\\\/\b\f\n\r\t\u0000\u00e9\uffff", "é漢😀"]"#,
    ];
    for text in good {
        assert_eq!(json::read(text).as_ref(), yaml::read(text).documents.first(), "{text}");
        assert_eq!(json::read(text), Some(document(text)), "{text}");
    }
    let bad = [
        "",
        "1",
        "\"a\"",
        "{",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "['a']",
        "[01]",
        "[-]",
        "[1.]",
        "[.5]",
        "[1e]",
        "[+1]",
        "[0x1]",
        "[nul]",
        "[True]",
        "[a]",
        "[\"a]",
        "[\"\t\"]",
        "[\"\n\"]",
        "[\"\u{1}\"]",
        r#"["\x41"]"#,
        r#"["\u+123"]"#,
        r#"["\u12"]"#,
        r#"["\u12é"]"#,
        r#"["\ud800"]"#,
        r#"["\udc00"]"#,
        r#"["\ud800\u0041"]"#,
        r#"["\ud800\n"]"#,
        "[1] # note",
        "[1]\n---\n[2]",
        "[1] [2]",
        "{\"a\":1,\"a\":2}",
        "[\u{a0}1]",
        "\u{b}[1]",
    ];
    for text in bad {
        assert_eq!(json::read(text), None, "{text:?}");
    }
}

#[test]
fn json_with_one_meaning_that_is_no_yaml_is_read() {
    let texts = ["[\"\\ud83d\\ude00\"]", "{\"a\":\t1}"];
    for text in texts {
        assert_ne!(yaml::read(text).diagnostics, [], "{text}");
        let document = document(text);
        assert_eq!(read(&document.text).documents, [document], "again as a record");
    }
    let Value::Sequence(items) = document(texts[0]).root.value else { panic!("a list") };
    assert_eq!(items[0].value, Value::Scalar(Scalar { text: "😀".into(), plain: false }));
}

#[test]
fn json_has_the_limits_of_yaml() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let many = |nodes: usize| format!("[{}1]", "1,".repeat(nodes - 2));
    let long = |bytes: usize| format!("[\"{}\"]", "x".repeat(bytes - 4));
    let wide = |keys: usize| {
        let entries: Vec<String> = (0..keys).map(|key| format!("\"{}\":1", key % (keys - 1))).collect();
        format!("{{\n{}}}", entries.join(",\n"))
    };
    for (fits, exceeds, finding) in [
        (deep(MAX_DEPTH), deep(MAX_DEPTH + 1), "1:65: error: nested deeper than 64 levels".to_owned()),
        (many(MAX_NODES), many(MAX_NODES + 1), "1:1: error: the document has more than 100000 nodes".to_owned()),
        (
            long(MAX_DOCUMENT_BYTES),
            long(MAX_DOCUMENT_BYTES + 1),
            "1:1: error: the document has 1048577 bytes: at most 1048576 are allowed".to_owned(),
        ),
        (
            deep(1),
            wide(3),
            "4:1: error: key \"0\" is given twice: first at 2:1 (help: keep one of them; readers disagree about which one counts)"
                .to_owned(),
        ),
    ] {
        assert_eq!(json::read(&fits), Some(document(&fits)));
        assert_eq!(findings(&exceeds), finding);
    }
    assert_eq!(json::read(&wide(1000)), None, "twice among many");
    assert!(findings(&wide(1000)).starts_with("1001:1: error: key \"0\" is given twice: first at 2:1"));
}

/// JSON texts with blanks of all kinds between tokens, and all kinds of characters and escapes.
fn json_text() -> impl Strategy<Value = String> {
    let blank = || "([ ]{0,2}|\n|\r\n|\r){0,2}";
    let around_colon = move || (blank(), blank()).prop_map(|(before, after)| format!("{before}:{after}"));
    let character = prop_oneof![
        6 => "[ -!#-\\[\\]-~]",
        2 => proptest::sample::select(vec!["é", "漢", "😀", "\u{85}", "\u{2028}", "\u{a0}", "\u{7f}", ": ", " #", "---"]).prop_map(str::to_owned),
        2 => proptest::sample::select(vec!["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u0000", "\\u00e9", "\\uFFFF", "\\u2028"])
            .prop_map(str::to_owned),
    ];
    let text = proptest::collection::vec(character, 0..6).prop_map(|parts| parts.concat());
    let leaf = prop_oneof![
        "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,3})?([eE][-+]?[0-9]{1,2})?",
        "true|false|null",
        text.clone().prop_map(|text| format!("\"{text}\"")),
    ];
    let joined = |items: Vec<(String, String)>| {
        items.into_iter().map(|(blank, item)| blank + &item).collect::<Vec<_>>().join(",")
    };
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let items = proptest::collection::vec((blank(), inner.clone()), 0..6);
        let entries = proptest::collection::vec((blank(), (text.clone(), inner, around_colon())), 0..12);
        prop_oneof![
            (items, blank()).prop_map(move |(items, end)| format!("[{}{end}]", joined(items))),
            (entries, blank()).prop_map(move |(entries, end)| {
                let numbered = entries.into_iter().enumerate();
                let entry =
                    |(number, (blank, (key, value, colon)))| (blank, format!("\"{key}{number}\"{colon}{value}"));
                format!("{{{}{end}}}", joined(numbered.map(entry).collect()))
            }),
        ]
    })
    .prop_filter("a list or an object", |text| text.starts_with(['[', '{']))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_readers_give_equal_nodes_at_equal_places(text in json_text()) {
        let direct = json::read(&text);
        prop_assert!(direct.is_some(), "{text:?}");
        prop_assert_eq!(yaml::read(&text), Documents { documents: direct.into_iter().collect(), diagnostics: vec![] }, "{:?}", text);
    }

    /// What is changed by a few characters is either read by both alike, or left to the YAML reader.
    #[test]
    fn what_both_readers_take_they_take_alike(
        text in json_text(), changes in proptest::collection::vec((0usize..200, "[\\[\\]{},:\"\\\\u0e.#a\t\n -]{0,2}", 0usize..2), 1..4)
    ) {
        let mut text: Vec<char> = text.chars().collect();
        for (at, insert, remove) in changes {
            let at = at.min(text.len());
            text.splice(at..(at + remove).min(text.len()), insert.chars());
        }
        let text: String = text.into_iter().collect();
        if let (Some(direct), Documents { documents, diagnostics }) = (json::read(&text), yaml::read(&text))
            && diagnostics.is_empty()
        {
            prop_assert_eq!(&documents, &[direct], "{:?}", text);
        }
    }
}
