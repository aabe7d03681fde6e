//! Plots as SVG, in colors that the page's style sheet gives them, so that they can be read by day and by night.

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::FontTransform;

use crate::media::report::Bucket;

/// Stand for a role in the style sheet (see [`STYLE`]); what they look like here is never seen.
const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
/// Of series, in turn. Told apart by most eyes, on white and on black.
pub(super) const COLORS: [&str; 5] = ["#2F7DE1", "#E8710A", "#12A378", "#B05CE6", "#E5484D"];
/// Makes roles of colors: an attribute gives way to a rule (CSS 2.2 §6.4.4).
pub(super) const STYLE: &str = "\
svg [fill=\"#010101\"]{fill:var(--ink)}\
svg [stroke=\"#010101\"]{stroke:var(--ink)}\
svg [stroke=\"#020202\"]{stroke:var(--grid)}\
svg text{font-family:inherit;stroke:none}";

/// About as wide as two of them stand beside each other, so that letters keep their size.
const SIZE: (u32, u32) = (500, 230);
const FONT: i32 = 12;

/// One line, or one set of points.
pub(super) struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// How values are drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Lines,
    Points,
    /// From zero up.
    Bars,
}

/// Values over seconds.
pub(super) fn over_time(unit: &str, shape: Shape, series: &[Series]) -> Option<String> {
    let all = || series.iter().flat_map(|s| &s.points);
    let last = all().map(|p| p.0).reduce(f64::max)?;
    let highest = all().map(|p| p.1).fold(0.0, f64::max);
    let top = match highest {
        0.0 => 1.0,
        highest => highest * 1.08,
    };
    draw(|area| {
        let mut chart = ChartBuilder::on(area);
        let mut chart = sized(&mut chart)
            .build_cartesian_2d(0.0..last.max(1.0), 0.0..top)
            .ok()?;
        let digits = usize::from(last < 8.0);
        let seconds = |x: &f64| format!("{x:.digits$} s");
        let values = |y: &f64| number(*y, top);
        mesh(&mut chart, unit, &seconds, &values)?;
        for (n, series) in series.iter().enumerate() {
            let color = color(n);
            let points = series.points.iter().copied();
            match shape {
                Shape::Lines => {
                    let line = LineSeries::new(points, color.stroke_width(2));
                    chart.draw_series(line).ok()?;
                }
                Shape::Points => {
                    let dots = points.map(|p| Circle::new(p, 3, color.mix(0.7).filled()));
                    chart.draw_series(dots).ok()?;
                }
                Shape::Bars => {
                    let bars = points
                        .filter(|(_, y)| *y > 0.0)
                        .map(|(x, y)| Rectangle::new([(x, 0.0), (x + 0.8, y)], color.filled()));
                    chart.draw_series(bars).ok()?;
                }
            }
        }
        Some(())
    })
}

/// How many of a hundred values lie between two times in µs, on a logarithmic axis.
pub(super) fn distribution(series: &[(String, Vec<Bucket>)]) -> Option<String> {
    let all = || series.iter().flat_map(|(_, buckets)| buckets);
    let first = all().map(|b| b.0.max(1)).min()? as f64;
    let last = all().map(|b| b.1).max()? as f64;
    let share = |buckets: &[Bucket], count: u64| {
        let total: u64 = buckets.iter().map(|b| b.2).sum();
        100.0 * count as f64 / total.max(1) as f64
    };
    let top = series
        .iter()
        .flat_map(|(_, buckets)| buckets.iter().map(|b| share(buckets, b.2)))
        .fold(0.0, f64::max)
        .max(0.01)
        * 1.08;
    draw(|area| {
        let mut chart = ChartBuilder::on(area);
        let range = (first..last.max(first * 2.0)).log_scale();
        let mut chart = sized(&mut chart).build_cartesian_2d(range, 0.0..top).ok()?;
        let times = |x: &f64| super::units::micros(*x as u64);
        let values = |y: &f64| number(*y, top);
        mesh(&mut chart, "share, %", &times, &values)?;
        for (n, (_, buckets)) in series.iter().enumerate() {
            let color = color(n).mix(0.55);
            let bars = buckets.iter().map(|(from, to, count)| {
                let corners = [
                    ((*from).max(1) as f64, 0.0),
                    (*to as f64, share(buckets, *count)),
                ];
                Rectangle::new(corners, color.filled())
            });
            chart.draw_series(bars).ok()?;
        }
        Some(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(chart: impl FnOnce(&Area<'_>) -> Option<()>) -> Option<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        chart(&area)?;
        area.present().ok()?;
    }
    // as wide as there is room for
    let fixed = format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1);
    Some(svg.replacen(&fixed, "", 1))
}

fn sized<'a, 'b, 'c>(
    chart: &'c mut ChartBuilder<'a, 'b, SVGBackend<'b>>,
) -> &'c mut ChartBuilder<'a, 'b, SVGBackend<'b>> {
    chart
        .margin(8)
        .margin_right(24)
        .x_label_area_size(26)
        .y_label_area_size(66)
}

fn mesh<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    unit: &str,
    x: &dyn Fn(&f64) -> String,
    y: &dyn Fn(&f64) -> String,
) -> Option<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let text = ("sans-serif", FONT).into_font().color(&INK);
    let upright = text.clone().transform(FontTransform::None);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(7)
        .y_labels(6)
        .label_style(upright)
        .axis_desc_style(text)
        .y_desc(unit)
        .x_label_formatter(x)
        .y_label_formatter(y)
        .draw()
        .ok()
}

fn color(n: usize) -> RGBColor {
    let hex = COLORS[n % COLORS.len()];
    let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or(0);
    RGBColor(part(1), part(3), part(5))
}

/// As many digits as an axis up to `top` needs.
fn number(value: f64, top: f64) -> String {
    match top {
        top if top < 0.5 => format!("{value:.3}"),
        top if top < 5.0 => format!("{value:.2}"),
        top if top < 20.0 => format!("{value:.1}"),
        _ => super::units::count(value.round().max(0.0) as u64),
    }
}
