"""The commands, one function each: they read their options, call what does the work, and print what it returns."""

# Command -> the module in this package that has it, and its line in --help.
COMMANDS = {
    "train": ("train", "train a network; DATA is digits, cifar10, cifar100, a folder of photos or an .npz"),
    "resume": ("train", "go on with a run exactly where it stopped"),
    "eval": ("train", "loss and error of a trained run"),
    "pack": ("train", "a run as a few small files, to be carried to another machine"),
    "unpack": ("train", "a run from such files"),
    "compare": ("compare", "does shaking help on your images? one network under several rules, and a plain verdict"),
    "predict": ("inference", "the classes of image files, with probabilities"),
    "export": ("inference", "a trained run for other programs: ONNX, torch.export, safetensors"),
    "analyze": ("experiments", "what shaking did to a trained network"),
    "reproduce": ("experiments", "the paper's tables and figures, published beside measured"),
    "report": ("experiments", "write one page that shows a run, or several side by side"),
    "models": ("tools", "networks by name"),
    "data": ("tools", "list, get or verify the data sets; check a folder of photos"),
    "doctor": ("tools", "what is installed here, how fast this machine is, what would help"),
    "bench": ("tools", "how fast this machine trains and uses a network"),
    "completion": ("completion", "what makes bash, zsh or fish complete commands and options"),
    "demo": ("tools", "half a minute: the same network with and without shaking"),
}
