//! The results as a table for people and as JSON for programs.

use serde::Serialize;

use crate::measure::median;

/// One measured quantity over all repetitions.
#[derive(Debug, Serialize)]
pub struct Quantity {
    pub scenario: &'static str,
    pub name: &'static str,
    pub unit: &'static str,
    /// In the order of the repetitions.
    pub values: Vec<f64>,
}

#[derive(Debug, Default)]
pub struct Results {
    quantities: Vec<Quantity>,
}

impl Results {
    pub fn add(&mut self, scenario: &'static str, name: &'static str, unit: &'static str, value: f64) {
        match self.quantities.iter_mut().find(|known| known.scenario == scenario && known.name == name) {
            Some(quantity) => quantity.values.push(value),
            None => self.quantities.push(Quantity { scenario, name, unit, values: vec![value] }),
        }
    }

    /// Medians, with the smallest and the largest beside them.
    pub fn table(&self) -> String {
        let mut lines = vec![[
            "scenario".to_owned(),
            "quantity".to_owned(),
            "median".to_owned(),
            "min … max".to_owned(),
            "unit".to_owned(),
        ]];
        for Quantity { scenario, name, unit, values } in &self.quantities {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let number = |value: f64| format!("{value:.2}");
            lines.push([
                (*scenario).to_owned(),
                (*name).to_owned(),
                number(median(values)),
                format!("{} … {}", number(least), number(most)),
                (*unit).to_owned(),
            ]);
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        let mut out = String::new();
        for [scenario, name, middle, range, unit] in &lines {
            let [a, b, c, d, _] = widths;
            out += format!("{scenario:a$}  {name:b$}  {middle:>c$}  {range:>d$}  {unit}").trim_end();
            out.push('\n');
        }
        out
    }

    pub fn json(&self, quick: bool) -> serde_json::Value {
        let quantities: Vec<_> = self
            .quantities
            .iter()
            .map(|quantity| {
                let Quantity { scenario, name, unit, values } = quantity;
                serde_json::json!({
                    "scenario": scenario, "name": name, "unit": unit, "median": median(values), "values": values,
                })
            })
            .collect();
        serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "quick": quick, "quantities": quantities })
    }
}
