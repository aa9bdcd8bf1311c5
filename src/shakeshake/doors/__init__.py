"""The commands, one function each: they read their options, call what does the work, and print what it returns."""

# Command -> the module in doors that has it, and its line in --help.
COMMANDS = {
    "train": ("training", "train a network; DATA is digits, cifar10, cifar100, a folder of photos or an .npz"),
    "resume": ("training", "go on with a run exactly where it stopped"),
    "eval": ("training", "loss and error of a trained run"),
    "pack": ("training", "a run as a few small files, to be carried to another machine"),
    "unpack": ("training", "a run from such files"),
    "compare": ("own", "does shaking help on your images? one network under several rules, and a plain verdict"),
    "predict": ("using", "the classes of image files, with probabilities"),
    "export": ("using", "a trained run for other programs: ONNX, torch.export, safetensors"),
    "analyze": ("paper", "what shaking did to a trained network"),
    "reproduce": ("paper", "the paper's tables and figures, published beside measured"),
    "report": ("paper", "write one page that shows a run, or several side by side"),
    "models": ("tools", "networks by name"),
    "data": ("tools", "list, get or verify the data sets; check a folder of photos"),
    "doctor": ("tools", "what is installed here, how fast this machine is, what would help"),
    "bench": ("tools", "how fast this machine trains and uses a network"),
    "completion": ("completion", "what makes bash, zsh or fish complete commands and options"),
    "demo": ("tools", "half a minute: the same network with and without shaking"),
}
