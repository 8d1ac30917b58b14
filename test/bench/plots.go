package bench

import (
	"fmt"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
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

// Draw writes the picture into a directory.
func (p Plot) Draw(directory string) error {
	picture := plot.New()
	picture.Title.Text, picture.X.Label.Text, picture.Y.Label.Text = p.Title, p.XLabel, p.YLabel
	if p.LogX {
		picture.X.Scale, picture.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	if p.LogY {
		picture.Y.Scale, picture.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	picture.Add(plotter.NewGrid())
	picture.Legend.Top, picture.Legend.Left = true, true
	for i, each := range p.Lines {
		points := make(plotter.XYs, len(each.X))
		for j := range each.X {
			points[j] = plotter.XY{X: each.X[j], Y: each.Y[j]}
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("draw %s: %s: %w", p.File, each.Name, err)
		}
		line.Color, line.Width = plotutil.Color(i), vg.Points(1.5)
		marks.Color, marks.Radius = plotutil.Color(i), vg.Points(1.5)
		picture.Add(line, marks)
		picture.Legend.Add(each.Name, line)
	}
	if err := picture.Save(18*vg.Centimeter, 10*vg.Centimeter, filepath.Join(directory, p.File)); err != nil {
		return fmt.Errorf("draw %s: %w", p.File, err)
	}
	return nil
}
