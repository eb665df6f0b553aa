//! One plot as SVG: lines over an axis, few enough points to be looked at, colours by the page's variables.

use std::fmt::Write;

use super::short;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 240.0;
/// Room for the labels: left, right, above, below.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 130.0;
const ABOVE: f64 = 14.0;
const BELOW: f64 = 26.0;
/// More points than this say nothing more on so few pixels.
pub const POINTS: usize = 460;
/// Colours that the page defines.
const COLOURS: usize = 8;
/// Labels at the right end stand at least so far apart.
const LABEL: f64 = 14.0;

/// A line.
pub struct Series {
    pub name: String,
    /// In order of x.
    pub points: Vec<(f64, f64)>,
}

/// How values are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten; what is not above zero is left out.
    Log,
}

/// A plot.
pub struct Chart {
    pub title: &'static str,
    pub unit: &'static str,
    pub scale: Scale,
    /// Places on the x axis that have a name.
    pub ticks: Vec<(f64, String)>,
    pub series: Vec<Series>,
}

impl Chart {
    /// As a figure of a page. Nothing when there is nothing to be seen.
    pub fn figure(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|point| self.shows(point.1));
        let Some(most) = points().map(|point| point.1).reduce(f64::max) else { return String::new() };
        let least = points().map(|point| point.1).reduce(f64::min).unwrap_or(most);
        let first = points().map(|point| point.0).reduce(f64::min).unwrap_or(0.0);
        let last = points().map(|point| point.0).reduce(f64::max).unwrap_or(1.0);
        let marks = marks(self.scale, least, most);
        let (low, high) = (self.place(marks[0]), self.place(*marks.last().expect("an axis has marks")));
        let x = |value: f64| LEFT + (value - first) / (last - first).max(1e-9) * (WIDTH - LEFT - RIGHT);
        let bottom = HEIGHT - BELOW;
        let y = |value: f64| bottom - (self.place(value) - low) / (high - low).max(1e-9) * (bottom - ABOVE);

        let mut svg = format!(
            "<figure><figcaption>{} <small>{}</small></figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(self.title),
            escape(self.unit),
            escape(self.title)
        );
        for mark in &marks {
            let at = y(*mark);
            let _ = writeln!(svg, "<line class=grid x1={LEFT} x2={:.1} y1={at:.1} y2={at:.1} />", WIDTH - RIGHT);
            let _ = writeln!(
                svg,
                "<text class=tick x={:.1} y={:.1} text-anchor=end>{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(*mark)
            );
        }
        for (value, name) in self.ticks.iter().filter(|(value, _)| (first..=last).contains(value)) {
            let _ = writeln!(
                svg,
                "<text class=tick x={:.1} y={:.1} text-anchor=middle>{}</text>",
                x(*value),
                HEIGHT - 8.0,
                escape(name)
            );
        }
        let mut ends = Vec::new();
        for (number, series) in self.series.iter().enumerate() {
            let shown: Vec<_> = series.points.iter().filter(|point| self.shows(point.1)).collect();
            let Some(end) = shown.last() else { continue };
            let line: Vec<_> = shown.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            let colour = number % COLOURS;
            let _ = writeln!(
                svg,
                "<polyline class=line style=\"stroke:var(--c{colour})\" points=\"{}\"><title>{}</title></polyline>",
                line.join(" "),
                escape(&series.name)
            );
            ends.push((y(end.1), colour, format!("{} {}", series.name, short(end.1))));
        }
        for (at, colour, text) in spread(ends) {
            let _ = writeln!(
                svg,
                "<text class=name style=\"fill:var(--c{colour})\" x={:.1} y={:.1}>{}</text>",
                WIDTH - RIGHT + 6.0,
                at + 4.0,
                escape(&text)
            );
        }
        svg + "</svg></figure>\n"
    }

    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        }
    }
}

/// Where the axis has lines: from at most the least value to at least the most.
fn marks(scale: Scale, least: f64, most: f64) -> Vec<f64> {
    match scale {
        Scale::Linear => {
            let step = nice(most.max(1e-3) / 4.0);
            let count = (most / step).ceil().max(1.0) as u32;
            (0..=count).map(|n| f64::from(n) * step).collect()
        }
        Scale::Log => {
            let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
            (from..=to.max(from + 1)).map(|power| 10f64.powi(power)).collect()
        }
    }
}

/// The next number of the form 1, 2 or 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= step * 0.999).unwrap_or(10.0);
    factor * power
}

/// Labels, moved apart so that each can be read.
fn spread(mut ends: Vec<(f64, usize, String)>) -> Vec<(f64, usize, String)> {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut above = f64::NEG_INFINITY;
    for end in &mut ends {
        end.0 = end.0.max(above + LABEL);
        above = end.0;
    }
    // What was pushed below the axis goes up again.
    let mut below = HEIGHT - BELOW + LABEL;
    for end in ends.iter_mut().rev() {
        end.0 = end.0.min(below - LABEL);
        below = end.0;
    }
    ends
}

/// As few points as can be seen: of each run of them the one `pick` prefers.
pub fn thin(points: Vec<(f64, f64)>, pick: fn(f64, f64) -> bool) -> Vec<(f64, f64)> {
    let run = points.len().div_ceil(POINTS).max(1);
    let best = |chunk: &[(f64, f64)]| chunk.iter().copied().reduce(|a, b| if pick(b.1, a.1) { b } else { a });
    points.chunks(run).filter_map(best).collect()
}

/// Text within a page.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_reaches_from_below_the_least_to_above_the_most_by_round_steps() {
        assert_eq!(marks(Scale::Linear, 3.0, 37.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(marks(Scale::Linear, 0.0, 0.0).len(), 2);
        assert_eq!(marks(Scale::Log, 0.3, 40.0), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!(marks(Scale::Log, 10.0, 10.0), [10.0, 100.0]);
    }

    #[test]
    fn thinning_keeps_the_peak_of_each_run() {
        let points: Vec<_> = (0..4600).map(|n| (f64::from(n), if n == 2345 { 99.0 } else { 1.0 })).collect();
        let thinned = thin(points, |a, b| a > b);
        assert!(thinned.len() <= POINTS && thinned.contains(&(2345.0, 99.0)));
    }

    #[test]
    fn labels_at_the_end_do_not_cover_each_other_and_stay_inside() {
        let ends = (0..8).map(|n| (HEIGHT - BELOW, n, String::new())).collect();
        let places: Vec<_> = spread(ends).into_iter().map(|end| end.0).collect();
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= LABEL), "{places:?}");
        assert!(places.iter().all(|place| *place <= HEIGHT - BELOW && *place > 0.0), "{places:?}");
    }

    #[test]
    fn a_chart_without_a_point_is_no_figure_and_names_are_escaped() {
        let chart = |points| Chart {
            title: "t",
            unit: "ms",
            scale: Scale::Log,
            ticks: Vec::new(),
            series: vec![Series { name: "<b>".to_owned(), points }],
        };
        assert_eq!(chart(vec![(0.0, 0.0)]).figure(), "");
        let figure = chart(vec![(0.0, 1.0), (1.0, 10.0)]).figure();
        assert!(figure.contains("&lt;b&gt; 10") && !figure.contains("<b>"), "{figure}");
    }
}
