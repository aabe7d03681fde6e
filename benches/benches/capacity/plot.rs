//! Plots as SVG.

use plotters::prelude::*;

/// One line.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const FONT: (&str, i32) = ("sans-serif", 14);

const COLORS: [RGBColor; 4] = [
    RGBColor(0x2f, 0x7d, 0xe1),
    RGBColor(0xe8, 0x71, 0x0a),
    RGBColor(0x12, 0xa3, 0x78),
    RGBColor(0xb0, 0x5c, 0xe6),
];

/// Values over a number on a logarithmic axis; the values' axis too where they span decades.
pub fn draw(x: &str, y: &str, logarithmic: bool, series: &[Series]) -> Option<String> {
    let all = || series.iter().flat_map(|one| &one.points);
    let first = all().map(|point| point.0).reduce(f64::min)?;
    let last = all().map(|point| point.0).reduce(f64::max)?;
    let lowest = all().map(|point| point.1).reduce(f64::min)?;
    let highest = all().map(|point| point.1).reduce(f64::max)?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (720, 360)).into_drawing_area();
        area.fill(&WHITE).ok()?;
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin(12)
            .margin_right(24)
            .x_label_area_size(48)
            .y_label_area_size(80);
        let across = (first..last).log_scale();
        // The two kinds of axes are different types.
        macro_rules! chart {
            ($up:expr) => {{
                let mut chart = builder.build_cartesian_2d(across, $up).ok()?;
                chart
                    .configure_mesh()
                    .x_desc(x)
                    .y_desc(y)
                    .light_line_style(TRANSPARENT)
                    .label_style(FONT)
                    .axis_desc_style(FONT)
                    .x_label_formatter(&|x| format!("{x:.0}"))
                    .y_label_formatter(&|y| format!("{y:.0}"))
                    .draw()
                    .ok()?;
                for (one, color) in series.iter().zip(COLORS) {
                    let points = || one.points.iter().copied();
                    let line = LineSeries::new(points(), color.stroke_width(2));
                    chart
                        .draw_series(line)
                        .ok()?
                        .label(one.name.as_str())
                        .legend(move |(x, y)| {
                            PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2))
                        });
                    let dots = points().map(|point| Circle::new(point, 3, color.filled()));
                    chart.draw_series(dots).ok()?;
                }
                chart
                    .configure_series_labels()
                    .label_font(FONT)
                    .position(SeriesLabelPosition::UpperLeft)
                    .background_style(WHITE.mix(0.8))
                    .draw()
                    .ok()?;
            }};
        }
        if logarithmic {
            chart!((lowest / 2.0..highest * 2.0).log_scale());
        } else {
            chart!(0.0..highest * 1.4);
        }
        area.present().ok()?;
    }
    Some(svg)
}
