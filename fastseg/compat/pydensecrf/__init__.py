"""The interface of pydensecrf: `import fastseg.compat.pydensecrf.densecrf as dcrf`."""
