"""Arguments and run files of small problems."""

SMALL = ("--frames", "24", "--pixels", "200", "--quiet")

RUN_FILE = """\
experimental_data: {{file_path: {path}}}
analyzer_parameters: {{scattering: {{wavevector_q: 0.0054}}}}
parameters:
  reference: {{alpha_ref: {{vary: false}}, D_offset_ref: {{vary: false}}}}
  sample: {{alpha_sample: {{vary: false}}, D_offset_sample: {{vary: false}}}}
  velocity: {{beta: {{vary: false}}, v_offset: {{vary: false}}}}
  fraction: {{f1: {{vary: false}}, f2: {{vary: false}}, f3: {{vary: false}}}}
  angle: {{phi0: {{vary: false}}}}
optimization: {{nlsq: {{n_starts: 2}}}}
"""
