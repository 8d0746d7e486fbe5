//! Dashboards, alerts and the list of metrics use names that exist, and the list has them all. No server is needed.

use std::collections::BTreeSet;

use serde_json::Value;
use walvec::metrics::Metrics;

const DASHBOARD: &str = include_str!("../../dashboards/walvec.json");
const ALERTS: &str = include_str!("../../dashboards/alerts.yaml");
const DOCUMENT: &str = include_str!("../../docs/metrics.md");

fn registered() -> BTreeSet<String> {
    Metrics::new().expect("names are valid and distinct").names().into_iter().collect()
}

/// Every `walvec_…` and `process_…` in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("walvec_") || word.starts_with("process_"))
        .collect()
}

/// The family of a series: a histogram has three.
fn family<'a>(name: &'a str, registered: &BTreeSet<String>) -> &'a str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix).filter(|family| registered.contains(*family)))
        .unwrap_or(name)
}

fn unknown(text: &str) -> Vec<&str> {
    let registered = registered();
    names(text).into_iter().filter(|name| !registered.contains(family(name, &registered))).collect()
}

fn strings<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if name == key
                    && let Some(text) = value.as_str()
                {
                    found.push(text);
                }
                strings(value, key, found);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| strings(value, key, found)),
        _ => {}
    }
}

#[test]
fn every_expression_of_the_dashboard_uses_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut expressions = Vec::new();
    strings(&dashboard, "expr", &mut expressions);
    strings(&dashboard, "definition", &mut expressions);
    assert!(expressions.len() > 20, "{} expressions", expressions.len());
    for expression in expressions {
        assert!(!names(expression).is_empty(), "no metric in {expression}");
        assert_eq!(unknown(expression), [""; 0], "{expression}");
        for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
            let count = |bracket| expression.matches(bracket).count();
            assert_eq!(count(open), count(close), "{expression}");
        }
    }
}

#[test]
fn every_metric_of_ours_is_on_the_dashboard() {
    let registered = registered();
    let shown: BTreeSet<&str> = names(DASHBOARD).into_iter().map(|name| family(name, &registered)).collect();
    let missing: Vec<&String> = registered.iter().filter(|name| !shown.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn panels_have_unique_ids_titles_and_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "id of {title} is taken");
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
        for x in side("x")..side("x") + side("w") {
            assert!(x < 24, "{title} is beyond the grid");
            for y in side("y")..side("y") + side("h") {
                assert!(cells.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn panels_say_what_they_show() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a title");
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title} has no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
    }
}

/// The alternatives of `label="a|b"` and `label=~"a|b"`.
fn matched<'a>(expression: &'a str, label: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices(label) {
        let value = &expression[at + label.len()..];
        let value = value.strip_prefix("=~\"").or_else(|| value.strip_prefix("=\""));
        found.extend(value.and_then(|value| value.split('"').next()).into_iter().flat_map(|value| value.split('|')));
    }
    found
}

#[test]
fn words_that_expressions_look_for_are_words_that_labels_take() {
    let metrics = Metrics::new().expect("names are valid and distinct");
    metrics.names(); // makes one table's series
    let text = metrics.render().expect("renders");
    let mut looked_for = 0;
    for label in ["phase", "outcome", "status"] {
        let dashboard = DASHBOARD.replace("\\\"", "\"");
        for word in matched(&dashboard, label).into_iter().chain(matched(ALERTS, label)) {
            assert!(text.contains(&format!("{label}=\"{word}\"")), "no {label} is ever {word}");
            looked_for += 1;
        }
    }
    assert!(looked_for >= 10, "{looked_for} words");
}

#[test]
fn every_alert_uses_metrics_that_exist_and_has_a_summary() {
    let starting =
        |prefix: &str| ALERTS.lines().filter_map(|line| line.trim().strip_prefix(prefix)).collect::<Vec<_>>();
    let (alerts, expressions) = (starting("- alert: "), starting("expr: "));
    assert!(alerts.len() > 5);
    assert_eq!((expressions.len(), starting("summary: ").len()), (alerts.len(), alerts.len()));
    assert_eq!(alerts.iter().collect::<BTreeSet<_>>().len(), alerts.len(), "a name is given twice");
    for expression in expressions {
        assert!(!names(expression).is_empty() || expression.starts_with("up{"), "{expression}");
    }
    // In expressions, and in what the texts tell a reader to look at.
    assert_eq!(unknown(ALERTS), [""; 0]);
}

/// Name, type and labels of a row of the document's tables.
fn documented() -> BTreeSet<(String, String, BTreeSet<String>)> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 8, "{line}");
        assert!(!cells[4].is_empty() && !cells[5].is_empty(), "no unit or no meaning: {line}");
        let labels = cells[3].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].to_owned(), labels)
    })
    .collect()
}

#[test]
fn the_document_lists_exactly_the_metrics_that_exist() {
    let metrics = Metrics::new().expect("names are valid and distinct");
    let names: BTreeSet<String> = metrics.names().into_iter().collect();
    let text = metrics.render().expect("renders");
    let mut exist = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("name and type");
        // No value of a label here holds a brace, a comma or an equals sign.
        let labels = text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let (series, labels) = line.split_once('{')?;
            (family(series, &names) == name).then(|| labels.split('}').next().unwrap_or_default())
        });
        let labels =
            labels.unwrap_or_default().split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        exist.insert((name.to_owned(), kind.to_owned(), labels.filter(|label| label != "le").collect()));
    }
    let documented = documented();
    assert!(exist.len() > 30, "{} metrics", exist.len());
    assert_eq!(documented.difference(&exist).collect::<Vec<_>>(), Vec::<&_>::new(), "documented, but not so");
    assert_eq!(exist.difference(&documented).collect::<Vec<_>>(), Vec::<&_>::new(), "not documented so");
}
