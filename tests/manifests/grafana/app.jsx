// Draws window.BOARD, a dashboard whose targets carry what Prometheus answered, with Grafana's own components.
import {createTheme, dateTime, FieldType, getDisplayProcessor, getFieldDisplayValues, LoadingState, ThemeContext, toDataFrame} from '@grafana/data';
import {BigValue, PanelChrome, TimeSeries} from '@grafana/ui';
import {createRoot} from 'react-dom/client';

const WIDTH = 1640, ROW = 30, GAP = 8, COLUMN = WIDTH / 24;
const theme = createTheme({colors: {mode: 'dark'}});
const board = window.BOARD;
const range = {from: dateTime(board.range[0]), to: dateTime(board.range[1]), raw: {from: 'now-30m', to: 'now'}};
const LINE = {
  drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none', spanNulls: false,
  showPoints: 'auto', pointSize: 5, stacking: {mode: 'none', group: 'A'}, axisPlacement: 'auto', axisColorMode: 'text',
  scaleDistribution: {type: 'linear'}, hideFrom: {tooltip: false, viz: false, legend: false}, thresholdsStyle: {mode: 'off'},
  axisCenteredZero: false,
};

function fieldConfig(panel) {
  const defaults = structuredClone(panel.fieldConfig.defaults);
  defaults.color ??= {mode: panel.type === 'stat' ? 'thresholds' : 'palette-classic'};
  defaults.thresholds ??= {mode: 'absolute', steps: [{value: null, color: 'green'}]};
  defaults.thresholds.steps.forEach((step) => (step.value ??= -Infinity));
  defaults.custom = {...LINE, ...defaults.custom};
  return {defaults, overrides: []};
}

function framesOf(panel) {
  const config = fieldConfig(panel).defaults;
  return panel.series.map(({name, points}, index) => {
    const frame = toDataFrame({refId: `A${index}`, name, fields: [
      {name: 'Time', type: FieldType.time, values: points.map((point) => point[0] * 1000), config: {}},
      {name: 'Value', type: FieldType.number, values: points.map((point) => point[1]), config: {...config, displayNameFromDS: name}},
    ]});
    frame.fields.forEach((field, nth) => {
      field.state = {seriesIndex: index, displayName: nth ? name : 'Time', origin: {frameIndex: index, fieldIndex: nth}};
      field.display = getDisplayProcessor({field, theme, timeZone: 'browser'});
    });
    return frame;
  });
}

function drawMarks(builder) {
  builder.addHook('draw', (plot) => {
    for (const {at, color} of board.marks) {
      const x = Math.round(plot.valToPos(at * 1000, 'x', true));
      if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
      plot.ctx.save();
      plot.ctx.strokeStyle = theme.visualization.getColorByName(color);
      plot.ctx.setLineDash([4, 4]);
      plot.ctx.beginPath();
      plot.ctx.moveTo(x, plot.bbox.top);
      plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
      plot.ctx.stroke();
      plot.ctx.restore();
    }
  });
  return null;
}

function Graph({panel, frames, width, height}) {
  return (
    <TimeSeries frames={frames} structureRev={1} width={width} height={height} timeRange={range} timeZone="browser"
      legend={panel.options.legend} options={panel.options}>
      {drawMarks}
    </TimeSeries>
  );
}

function Stat({panel, frames, width, height}) {
  const {reduceOptions, colorMode, graphMode, textMode} = panel.options;
  const values = getFieldDisplayValues({
    fieldConfig: fieldConfig(panel), reduceOptions, replaceVariables: (text) => text, theme, data: frames, timeZone: 'browser',
  });
  return (
    <div style={{display: 'flex'}}>
      {values.map((value, index) => (
        <BigValue key={index} value={value.display} width={width / values.length} height={height} theme={theme}
          colorMode={colorMode} graphMode={graphMode} justifyMode="auto" textMode={textMode} />
      ))}
    </div>
  );
}

function Panel({panel}) {
  const frames = framesOf(panel);
  const Picture = panel.type === 'stat' ? Stat : Graph;
  const width = panel.gridPos.w * COLUMN - GAP, height = panel.gridPos.h * (ROW + GAP) - GAP;
  const body = (inside, below) =>
    frames.length ? <Picture panel={panel} frames={frames} width={inside} height={below} />
      : <div style={{textAlign: 'center', paddingTop: below / 2 - 10, color: theme.colors.text.secondary}}>No data</div>;
  return <PanelChrome title={panel.title} width={width} height={height} loadingState={LoadingState.Done}>{body}</PanelChrome>;
}

function Board() {
  const bottom = Math.max(...board.panels.map(({gridPos}) => gridPos.y + gridPos.h)) * (ROW + GAP);
  const {background, text} = theme.colors;
  return (
    <ThemeContext.Provider value={theme}>
      <div style={{background: background.canvas, padding: 12, color: text.primary, fontFamily: theme.typography.fontFamily, fontSize: 14}}>
        <div style={{padding: '4px 0 10px', fontSize: 18}}>{board.title}</div>
        <div style={{position: 'relative', width: WIDTH, height: bottom}}>
          {board.panels.map((panel) => (
            <div key={panel.id} data-panel={panel.id} style={{position: 'absolute', left: panel.gridPos.x * COLUMN, top: panel.gridPos.y * (ROW + GAP)}}>
              {panel.type === 'row' ? <div style={{paddingTop: 6, fontSize: 16}}>⌄ {panel.title}</div> : <Panel panel={panel} />}
            </div>
          ))}
        </div>
      </div>
    </ThemeContext.Provider>
  );
}

createRoot(document.getElementById('root')).render(<Board />);
