package bench

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Plot is one picture.
type Plot struct {
	// File is its name, which ends in .svg.
	File       string
	Title      string
	XLabel     string
	YLabel     string
	LogX, LogY bool
	Lines      []Line
}

// Line is one of a picture's.
type Line struct {
	Name string
	// X and Y have the same length. On a logarithmic axis all are above zero.
	X, Y []float64
}

// Distribution is the line of what part of a series is done within which time, in
// milliseconds.
func Distribution(name string, series Series) Line {
	line := Line{Name: name}
	for percent := 1; percent <= 100; percent++ {
		line.X = append(line.X, float64(series.Quantile(float64(percent)/100).Microseconds())/1000)
		line.Y = append(line.Y, float64(percent))
	}
	return line
}

// The size of a picture, and the part of it on the right that names the lines.
const width, height, legendWidth = 23 * vg.Centimeter, 10 * vg.Centimeter, 7 * vg.Centimeter

// colors are eight that people with any kind of color vision can tell apart (Okabe and Ito).
func colors() []color.Color {
	return []color.Color{
		color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}, color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff},
		color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff}, color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff},
		color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}, color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff},
		color.RGBA{R: 0x00, G: 0x00, B: 0x00, A: 0xff}, color.RGBA{R: 0x99, G: 0x99, B: 0x00, A: 0xff},
	}
}

// Draw writes the picture into a directory. A picture has at most eight lines, each of its
// own color. The error is one of the file, or says what cannot be drawn.
func (p Plot) Draw(directory string) error {
	if len(p.Lines) > len(colors()) {
		return fmt.Errorf("draw %s: %d lines, and there are %d colors", p.File, len(p.Lines), len(colors()))
	}
	picture := p.chart()
	legend := plot.NewLegend()
	legend.Top, legend.Left, legend.Padding = true, true, vg.Millimeter
	legend.TextStyle.Font.Size = vg.Points(10)
	for i, each := range p.Lines {
		line, marks, err := p.line(each, colors()[i])
		if err != nil {
			return err
		}
		picture.Add(line, marks)
		legend.Add(each.Name, line)
	}
	canvas := vgsvg.New(width, height)
	page := draw.New(canvas)
	picture.Draw(draw.Crop(page, 0, -legendWidth, 0, 0))
	legend.Draw(draw.Crop(page, width-legendWidth+vg.Centimeter/2, 0, 0, -vg.Centimeter))
	return save(canvas, filepath.Join(directory, p.File))
}

func (p Plot) chart() *plot.Plot {
	chart := plot.New()
	chart.Title.Text, chart.X.Label.Text, chart.Y.Label.Text = p.Title, p.XLabel, p.YLabel
	if p.LogX {
		chart.X.Scale, chart.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	if p.LogY {
		chart.Y.Scale, chart.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	chart.Add(plotter.NewGrid())
	return chart
}

func (p Plot) line(l Line, c color.Color) (*plotter.Line, *plotter.Scatter, error) {
	points := make(plotter.XYs, len(l.X))
	for i := range l.X {
		points[i] = plotter.XY{X: l.X[i], Y: l.Y[i]}
	}
	line, marks, err := plotter.NewLinePoints(points)
	if err != nil {
		return nil, nil, fmt.Errorf("draw %s: %s: %w", p.File, l.Name, err)
	}
	line.Color, line.Width = c, vg.Points(1.5)
	marks.Color, marks.Radius = c, vg.Points(1.5)
	return line, marks, nil
}

func save(canvas *vgsvg.Canvas, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("save a picture: %w", err)
	}
	_, err = canvas.WriteTo(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("save the picture %s: %w", path, err)
	}
	return nil
}
